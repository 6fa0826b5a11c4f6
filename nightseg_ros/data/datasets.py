# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Data sets by name: an adapter of a few lines turns each layout into samples.

A layout is a pair of patterns, which tell the label image of each picture. An encoding tells what
the stored values mean: a name that covers several classes of a taxonomy, or none of them for
certain, means nothing in it, and its pixels become unlabelled rather than wrong.

Of published data sets ROOT is the folder that the downloads unpack into. Licences differ:
comma10k's is MIT; read the others' before weights that were trained on them leave the house.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nightseg_ros.data.sample import (
    IMAGE_SUFFIXES,
    SCENE,
    Color,
    DataError,
    LabelFile,
    LabelMap,
    Sample,
    color_map,
    id_map,
)
from nightseg_ros.files import user_path
from nightseg_ros.taxonomy import (
    CAMVID11,
    CITYSCAPES19,
    TAXONOMIES,
    UNLABELLED,
    Taxonomy,
    TaxonomyError,
)

LIGHTS = ('day', 'dusk', 'night')
#: What the fields of a pattern were in a path, such as {'source': 'aachen', 'name': 'a_1'}.
Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What lies in the folders of a data set, whole or not."""

    samples: list[Sample]
    """Every picture, sorted by path; ``label`` is where its labels should be."""
    fields: list[Fields]
    """The fields of each sample's path."""
    unlabelled: list[Sample]
    """Samples whose labels are not there, though the data set has labels."""
    orphans: list[Path]
    """Label images without a picture."""

    def only(self, word: str) -> Listing:
        """
        Keep what has ``word`` for its light, its source or a field of its path.

        ``DataError`` lists the words there are where that would be nothing.
        """
        keep = [
            index
            for index, (sample, fields) in enumerate(zip(self.samples, self.fields))
            if word in (sample.light, sample.source, *fields.values())
        ]
        if not keep:
            known = {x for s in self.samples for x in (s.light, s.source) if x}
            raise DataError(f"nothing in it is of '{word}'; there is {', '.join(sorted(known))}")
        kept = [self.samples[index] for index in keep]
        images = {sample.image for sample in kept}
        return Listing(
            samples=kept,
            fields=[self.fields[index] for index in keep],
            unlabelled=[sample for sample in self.unlabelled if sample.image in images],
            orphans=[path for path in self.orphans if word in path.parts or word in path.name],
        )


def list_pairs(
    root: Path,
    images: str,
    labels: str = '',
    label_map: LabelMap | None = None,
    *,
    light: str | None | Mapping[str, str] | Callable[[Fields], str | None] = None,
    source: str | Callable[[Fields], str] = '',
    keep: Callable[[Fields], bool] = lambda fields: True,
    **given: str,
) -> Listing:
    """
    List the pictures below ``root`` that match one pattern, and their labels by another.

    Patterns are relative paths in which ``{field}`` stands for a part of a name: the value in
    ``given``, or else anything, and the same in both patterns. An ending ``.*`` is any of
    ``IMAGE_SUFFIXES``. Without ``labels`` nothing is labelled; bare paths are given where there
    is no ``label_map``. ``light`` is that of every picture, or a table from the field
    ``{light}``; ``source`` is every picture's, the field ``{source}`` if empty. ``keep`` leaves
    out what it says no to. ``DataError`` names a folder that is missing, or a light that is none.
    """
    if given.get('split') == '':
        raise DataError('it has splits; write ADAPTER:ROOT:SPLIT')
    folder = root / _fixed_part(images, given)
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'")
    found = [(f, path) for f, path in _matches(root, images, given) if keep(f)]
    wanted: dict[tuple[tuple[str, str], ...], Path] = {}
    if labels:
        wanted = {_key(f): path for f, path in _matches(root, labels, given) if keep(f)}
    used = set()
    samples, unlabelled = [], []
    for fields, path in found:
        label = there = None
        if labels:
            there = wanted.get(_key(fields))
            used.add(there)
            where = there or root / labels.format(**given, **fields)
            label = where if label_map is None else LabelFile(where, label_map)
        sample = Sample(
            image=path,
            label=label,
            source=source(fields) if callable(source) else source or fields['source'],
            light=check_light(_light(light, fields)),
        )
        samples.append(sample)
        if labels and there is None:
            unlabelled.append(sample)
    return Listing(
        samples=samples,
        fields=[fields for fields, _ in found],
        unlabelled=unlabelled,
        orphans=[path for path in wanted.values() if path not in used],
    )


def check_light(light: str | None) -> str | None:
    """Return the light, None for an empty one; ``DataError`` where it is no known light."""
    if light and light not in LIGHTS:
        raise DataError(f"light is one of {', '.join(LIGHTS)}, got '{light}'")
    return light or None


def _light(
    light: str | None | Mapping[str, str] | Callable[[Fields], str | None], fields: Fields
) -> str | None:
    if callable(light):
        return light(fields)
    if isinstance(light, Mapping):
        return light.get(fields['light'])
    return light


def _key(fields: Fields) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(fields.items()))


def _matches(root: Path, pattern: str, given: Mapping[str, str]) -> Iterator[tuple[Fields, Path]]:
    """Yield the fields and the path of each visible file that matches, sorted by path."""
    any_suffix = pattern.endswith('.*')
    parts = re.split(r'\{(\w+)\}', pattern.removesuffix('.*'))
    glob, expression = '', ''
    for index, part in enumerate(parts):
        if index % 2 == 0:
            glob += part
            expression += re.escape(part)
        elif part in given:
            glob += _escape_glob(given[part])
            expression += re.escape(given[part])
        else:
            glob += '*'
            expression += f'(?P<{part}>[^/]+)'
    expression += r'\.\w+' if any_suffix else ''
    for path in sorted(root.glob(glob + ('.*' if any_suffix else ''))):
        if path.name.startswith('.') or (any_suffix and path.suffix.lower() not in IMAGE_SUFFIXES):
            continue
        match = re.fullmatch(expression, path.relative_to(root).as_posix())
        if match:
            yield match.groupdict(), path


def _escape_glob(text: str) -> str:
    return re.sub(r'([*?[])', r'[\1]', text)


def _fixed_part(pattern: str, given: Mapping[str, str]) -> str:
    """Return the folders of a pattern that come before the first unknown field."""
    filled = re.sub(r'\{(\w+)\}', lambda m: given.get(m[1], '*'), pattern)
    return filled.partition('*')[0].rpartition('/')[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How the label images of a data set store class names: as ids or as RGB colours."""

    vocabulary: str
    """Key of ``MEANINGS``, or a taxonomy's name."""
    ids: Mapping[int, str] | None = None
    colors: Mapping[Color, str] | None = None


#: Cityscapes' labels by id (Cordts et al. 2016); KITTI and NightCity took them over.
CITYSCAPES_IDS = Encoding(
    vocabulary='cityscapes',
    ids=dict(
        enumerate(
            (
                'unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static',
                'dynamic', 'ground', 'road', 'sidewalk', 'parking', 'rail track', 'building',
                'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole', 'polegroup',
                'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person',
                'rider', 'car', 'truck', 'bus', 'caravan', 'trailer', 'train', 'motorcycle',
                'bicycle',
            )
        )
    ),
)  # fmt: skip

#: The ids that Cityscapes evaluates; ACDC, Dark Zurich, BDD100K and others store them.
CITYSCAPES_TRAIN_IDS = Encoding(vocabulary='cityscapes', ids=dict(enumerate(CITYSCAPES19.classes)))

#: CamVid's 11 classes as SegNet's copy of it stores them; 11 is unlabelled there.
SEGNET_IDS = Encoding(
    vocabulary='camvid11', ids=dict(enumerate((*CAMVID11.classes, 'unlabelled')))
)

#: CamVid's 32 classes as the original label images store them (Brostow et al. 2009).
CAMVID32_COLORS = Encoding(
    vocabulary='camvid32',
    colors={
        (64, 128, 64): 'animal', (192, 0, 128): 'archway', (0, 128, 192): 'bicyclist',
        (0, 128, 64): 'bridge', (128, 0, 0): 'building', (64, 0, 128): 'car',
        (64, 0, 192): 'cart luggage pram', (192, 128, 64): 'child',
        (192, 192, 128): 'column pole', (64, 64, 128): 'fence',
        (128, 0, 192): 'lane marking, drivable', (192, 0, 64): 'lane marking, other',
        (128, 128, 64): 'misc text', (192, 0, 192): 'motorcycle scooter',
        (128, 64, 64): 'other moving', (64, 192, 128): 'parking block',
        (64, 64, 0): 'pedestrian', (128, 64, 128): 'road', (128, 128, 192): 'road shoulder',
        (0, 0, 192): 'sidewalk', (192, 128, 128): 'sign symbol', (128, 128, 128): 'sky',
        (64, 128, 192): 'suv pickup truck', (0, 0, 64): 'traffic cone',
        (0, 64, 64): 'traffic light', (192, 64, 128): 'train', (128, 128, 0): 'tree',
        (192, 128, 192): 'truck bus', (64, 0, 64): 'tunnel', (192, 192, 0): 'vegetation misc',
        (0, 0, 0): 'void', (64, 192, 0): 'wall',
    },
)  # fmt: skip

#: comma10k's five categories.
COMMA10K_COLORS = Encoding(
    vocabulary='comma10k',
    colors={
        (0x40, 0x20, 0x20): 'road', (0xFF, 0x00, 0x00): 'lane marking',
        (0x80, 0x80, 0x60): 'undrivable', (0x00, 0xFF, 0x66): 'movable',
        (0xCC, 0x00, 0xFF): 'ego car',
    },
)  # fmt: skip

#: Vocabulary and taxonomy: the class that each name means, with no entry for 'unlabelled'.
MEANINGS: dict[tuple[str, str], dict[str, str]] = {
    ('cityscapes', 'cityscapes19'): {name: name for name in CITYSCAPES19.classes},
    ('cityscapes', 'camvid11'): {
        'sky': 'sky', 'building': 'building', 'wall': 'building', 'bridge': 'building',
        'tunnel': 'building', 'pole': 'pole', 'polegroup': 'pole', 'road': 'road',
        'sidewalk': 'pavement', 'vegetation': 'tree', 'terrain': 'tree', 'traffic sign': 'sign',
        'traffic light': 'sign', 'fence': 'fence', 'car': 'car', 'truck': 'car', 'bus': 'car',
        'caravan': 'car', 'trailer': 'car', 'train': 'car', 'person': 'pedestrian',
        'rider': 'bicyclist', 'bicycle': 'bicyclist', 'motorcycle': 'bicyclist',
    },
    # the grouping of SegNet (Badrinarayanan et al. 2017)
    ('camvid32', 'camvid11'): {
        'sky': 'sky', 'building': 'building', 'archway': 'building', 'bridge': 'building',
        'tunnel': 'building', 'wall': 'building', 'column pole': 'pole', 'traffic cone': 'pole',
        'road': 'road', 'lane marking, drivable': 'road', 'lane marking, other': 'road',
        'sidewalk': 'pavement', 'parking block': 'pavement', 'road shoulder': 'pavement',
        'tree': 'tree', 'vegetation misc': 'tree', 'sign symbol': 'sign', 'misc text': 'sign',
        'traffic light': 'sign', 'fence': 'fence', 'car': 'car', 'suv pickup truck': 'car',
        'truck bus': 'car', 'train': 'car', 'other moving': 'car', 'pedestrian': 'pedestrian',
        'child': 'pedestrian', 'cart luggage pram': 'pedestrian', 'animal': 'pedestrian',
        'bicyclist': 'bicyclist', 'motorcycle scooter': 'bicyclist',
    },
    ('camvid32', 'cityscapes19'): {
        'sky': 'sky', 'building': 'building', 'wall': 'wall', 'column pole': 'pole',
        'road': 'road', 'lane marking, drivable': 'road', 'lane marking, other': 'road',
        'sidewalk': 'sidewalk', 'tree': 'vegetation', 'sign symbol': 'traffic sign',
        'traffic light': 'traffic light', 'fence': 'fence', 'car': 'car', 'train': 'train',
        'pedestrian': 'person', 'child': 'person',
    },
    # building holds walls, tree terrain, sign lights, car lorries: they could be several classes
    ('camvid11', 'cityscapes19'): {
        'sky': 'sky', 'pole': 'pole', 'road': 'road', 'pavement': 'sidewalk', 'fence': 'fence',
        'pedestrian': 'person',
    },
    ('comma10k', 'camvid11'): {'road': 'road', 'lane marking': 'road'},
    ('comma10k', 'cityscapes19'): {'road': 'road', 'lane marking': 'road'},
}  # fmt: skip
# names of a taxonomy are words of the vocabulary that it was taken from
_VOCABULARY = {'cityscapes19': 'cityscapes'}


def label_map(encoding: Encoding, taxonomy: Taxonomy) -> LabelMap:
    """
    Return the table from what a data set stores to ids of ``taxonomy``.

    A vocabulary that is not known here, a user's own, is taken by its names. ``DataError`` where
    none of its names has a meaning in the taxonomy.
    """
    stored = encoding.colors or encoding.ids or {}
    vocabulary = _VOCABULARY.get(encoding.vocabulary, encoding.vocabulary)
    known = {name for name, _ in MEANINGS} | set(TAXONOMIES)
    if encoding.vocabulary == taxonomy.name or vocabulary not in known:
        means = {name: name for name in stored.values() if name in taxonomy.classes}
    else:
        means = MEANINGS.get((vocabulary, taxonomy.name), {})
    if not means:
        readable = [to for name, to in MEANINGS if name == vocabulary]
        raise DataError(
            f"its labels ('{encoding.vocabulary}') mean nothing in the taxonomy "
            f"'{taxonomy.name}'; they do in {readable or 'none that is known here'}"
        )

    def class_id(name: str) -> int:
        return taxonomy.id_of(means[name]) if name in means else UNLABELLED

    if encoding.colors is not None:
        return color_map(taxonomy.name, ((c, class_id(n)) for c, n in encoding.colors.items()))
    ids = encoding.ids or {}
    return id_map(taxonomy.name, ((value, class_id(name)) for value, name in ids.items()))


def own_ids(taxonomy: Taxonomy) -> Encoding:
    """Return the encoding of label images that store a taxonomy's own ids."""
    return Encoding(vocabulary=taxonomy.name, ids=dict(enumerate(taxonomy.classes)))


def translation(source: Taxonomy, target: Taxonomy) -> npt.NDArray[np.uint8]:
    """
    Return uint8 [256]: the id in ``target`` of each id in ``source``, 255 where there is none.

    Indexing it with a mask turns, say, a Cityscapes network's labels into those of CamVid-11.
    """
    table = np.full(256, UNLABELLED, np.uint8)
    for stored, to in label_map(own_ids(source), target).entries:
        table[stored] = to
    return table


Adapter = Callable[[Path, str, Taxonomy], Listing]


def _head(fields: Fields) -> str:
    return fields['name'].split('_')[0]


def camvid(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """
    CamVid's 11 classes: ``ROOT/SPLIT/images`` and ``labels``, or ``SPLIT`` and ``SPLITannot``.

    The latter is SegNet's copy. ONLY is a drive: settings are chosen on a drive that was not
    trained on.
    """
    if not (root / split / 'images').is_dir() and (root / f'{split}annot').is_dir():
        return list_pairs(
            root, '{split}/{name}.*', '{split}annot/{name}.png', label_map(SEGNET_IDS, taxonomy),
            light=_camvid_light, source=_head, split=split,
        )  # fmt: skip
    return list_pairs(
        root, '{split}/images/{name}.*', '{split}/labels/{name}.png',
        label_map(own_ids(CAMVID11), taxonomy), light='dusk' if split == 'dusk' else 'day',
        source=_head, split=split,
    )  # fmt: skip


def camvid32(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """
    CamVid's 32 classes as coloured ``*_L.png``; ONLY is a drive.

    Without SPLIT in the original folders ``701_StillsRaw_full`` and ``LabeledApproved_full``,
    else in ``SPLIT`` and ``SPLIT_labels``.
    """
    return list_pairs(
        root, '{images_at}/{name}.*', '{labels_at}/{name}_L.png',
        label_map(CAMVID32_COLORS, taxonomy),
        light=_camvid_light, source=_head, images_at=split or '701_StillsRaw_full',
        labels_at=f'{split}_labels' if split else 'LabeledApproved_full',
    )  # fmt: skip


def _camvid_light(fields: Fields) -> str:
    # the one drive at dusk
    return 'dusk' if _head(fields) == '0001TP' else 'day'


def cityscapes(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """Cityscapes' fine labels (``train_extra``: the coarse ones); ONLY is a city."""
    kind = 'gtCoarse' if split == 'train_extra' else 'gtFine'
    # the labels of the test cities are not published; their files hold void
    labels = '' if split == 'test' else '{kind}/{split}/{source}/{name}_{kind}_labelIds.png'
    return list_pairs(
        root, 'leftImg8bit/{split}/{source}/{name}_leftImg8bit.png', labels,
        label_map(CITYSCAPES_IDS, taxonomy), light='day', split=split, kind=kind,
    )  # fmt: skip


def bdd10k(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """
    BDD100K's 10,000 labelled images, ``images/10k`` and ``labels/sem_seg/masks``; ONLY is a light.

    The old release ``seg/images`` and ``seg/labels`` is read as well. The light comes from the
    JSON files of the 100,000 images where those are there; not every image is in them.
    """
    images, labels = 'images/10k/{split}/{name}.jpg', 'labels/sem_seg/masks/{split}/{name}.png'
    if not (root / 'images' / '10k').is_dir() and (root / 'seg' / 'images').is_dir():
        images, labels = 'seg/images/{split}/{name}.jpg', 'seg/labels/{split}/{name}_train_id.png'
    lights = _bdd_lights(root)
    return list_pairs(
        root, images, '' if split == 'test' else labels, label_map(CITYSCAPES_TRAIN_IDS, taxonomy),
        light=lambda fields: lights.get(fields['name']), source='bdd100k', split=split,
    )  # fmt: skip


def bdd100k(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """BDD100K's 100,000 images, which have no masks; ONLY is a light, from the JSON files."""
    lights = _bdd_lights(root)
    return list_pairs(
        root, 'images/100k/{split}/{name}.jpg',
        light=lambda fields: lights.get(fields['name']), source='bdd100k', split=split,
    )  # fmt: skip


_BDD_LIGHTS = {'daytime': 'day', 'dawn/dusk': 'dusk', 'night': 'night'}
_BDD_JSON = ('bdd100k_labels_images_{}.json', 'det_20/det_{}.json')


def _bdd_lights(root: Path) -> dict[str, str]:
    """Return the light of each image name; images of one split lie in the JSON of another."""
    lights = {}
    for split in ('train', 'val'):
        for file in (root / 'labels' / name.format(split) for name in _BDD_JSON):
            if not file.is_file():
                continue
            try:
                frames = json.loads(file.read_bytes())
                for frame in frames if isinstance(frames, list) else frames['frames']:
                    time = (frame.get('attributes') or {}).get('timeofday')
                    if time in _BDD_LIGHTS:
                        lights[Path(frame['name']).stem] = _BDD_LIGHTS[time]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"'{file}' is no list of BDD100K frames: {error!r}") from error
            break
    return lights


def acdc(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """
    ACDC: four conditions, of which night is night; ONLY is one (night, fog, rain, snow).

    The splits ``*_ref`` show the same places in good daylight.
    """
    ref = '_ref' if split.endswith('_ref') else ''
    labels = 'gt/{light}/{split}/{source}/{name}_gt{ref}_labelTrainIds.png'
    if split == 'test' or (ref and not any(root.glob(f'gt/*/{split}'))):
        labels = ''  # none are published, or those of the daylight pictures are not here
    return list_pairs(
        root, 'rgb_anon/{light}/{split}/{source}/{name}_rgb{ref}_anon.png', labels,
        label_map(CITYSCAPES_TRAIN_IDS, taxonomy), split=split, ref=ref,
        light='day' if ref else {'night': 'night', 'fog': 'day', 'rain': 'day', 'snow': 'day'},
    )  # fmt: skip


def dark_zurich(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """Dark Zurich: ``train`` by day, twilight and night without labels, ``val`` with them."""
    light = {'day': 'day', 'twilight': 'dusk', 'night': 'night'}
    if split != 'val':
        return list_pairs(
            root, 'rgb_anon/{split}/{light}/{source}/{name}.png', light=light, split=split
        )
    return list_pairs(
        root, 'rgb_anon/{split}/{light}/{source}/{name}_rgb_anon.png',
        'gt/{split}/{light}/{source}/{name}_gt_labelTrainIds.png',
        label_map(CITYSCAPES_TRAIN_IDS, taxonomy), light=light, split=split,
    )  # fmt: skip


def nighttime_driving(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """Nighttime Driving's 50 test images with coarse labels."""
    return list_pairs(
        root, 'leftImg8bit/{split}/night/{name}_leftImg8bit.png',
        'gtCoarse_daytime_trainvaltest/{split}/night/{name}_gtCoarse_labelTrainIds.png',
        label_map(CITYSCAPES_TRAIN_IDS, taxonomy), light='night', source='nighttime_driving',
        split=split or 'test',
    )  # fmt: skip


def nightcity(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """NightCity's ``NightCity-images`` and ``-label``, or NightCity-fine's ``img`` and ``lbl``."""
    if (root / split / 'img').is_dir():
        return list_pairs(
            root, '{split}/img/{name}.*', '{split}/lbl/{name}_trainIds.png',
            label_map(CITYSCAPES_TRAIN_IDS, taxonomy), light='night', source=_head, split=split,
        )  # fmt: skip
    return list_pairs(
        root, 'NightCity-images/images/{split}/{name}.*',
        'NightCity-label/label/{split}/{name}_labelIds.png', label_map(CITYSCAPES_IDS, taxonomy),
        light='night', source=_head, split=split,
    )  # fmt: skip


def kitti(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """KITTI semantics: 200 labelled images in ``training``, ``testing`` without labels."""
    return list_pairs(
        root, '{split}/image_2/{name}.png',
        '' if split == 'testing' else '{split}/semantic/{name}.png',
        label_map(CITYSCAPES_IDS, taxonomy), light='day', source='kitti',
        split=split or 'training',
    )  # fmt: skip


def comma10k(root: Path, split: str, taxonomy: Taxonomy) -> Listing:
    """
    comma10k: SPLIT val is every name that ends in 9, train the others, none both.

    Its five categories are the taxonomy 'comma10k'; in the others only the road has a meaning.
    """
    if split not in ('', 'train', 'val'):
        raise DataError(f"comma10k has the splits train and val, got '{split}'")
    return list_pairs(
        root, 'imgs/{name}.png', 'masks/{name}.png', label_map(COMMA10K_COLORS, taxonomy),
        # NUMBER_DEVICE_DATE--TIME_…
        source=lambda fields: (fields['name'].split('_') + [''])[1] or 'comma10k',
        keep=lambda fields: not split or (split == 'val') == fields['name'].endswith('9'),
    )  # fmt: skip


#: Adapters of ``ADAPTER:ROOT:SPLIT``; ONLY is taken care of for all of them.
PUBLISHED: dict[str, Adapter] = {
    'camvid': camvid,
    'camvid32': camvid32,
    'cityscapes': cityscapes,
    'bdd10k': bdd10k,
    'bdd100k': bdd100k,
    'acdc': acdc,
    'dark_zurich': dark_zurich,
    'nighttime_driving': nighttime_driving,
    'nightcity': nightcity,
    'kitti': kitti,
    'comma10k': comma10k,
}


def open_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> list[Sample]:
    """
    Return the samples of ``ADAPTER:ROOT[:SPLIT[:ONLY]]``, sorted by path.

    ``read_labels`` gives their labels as ids of ``taxonomy``, whatever the data set stores;
    classes that it lacks become 255. ONLY keeps one light (day, dusk, night), drive or city.
    ``DataError`` names an unknown adapter, a folder that is missing, one without images, images
    whose labels are missing, and labels that say nothing in the taxonomy.
    """
    listing = list_dataset(spec, taxonomy)
    if listing.unlabelled:
        first = listing.unlabelled[0]
        others = f', and {len(listing.unlabelled) - 1} others' * (len(listing.unlabelled) > 1)
        raise DataError(
            f"image '{first.image}' has no labels '{first.label}'{others}; nightseg data check "
            f'{spec} lists them'
        )
    return listing.samples


def list_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> Listing:
    """Return what lies in a data set's folders, missing labels and pictures included."""
    name, root, split = parse_spec(spec)
    try:
        listing = ADAPTERS[name](root, split, taxonomy)
    except DataError as error:
        raise DataError(f"'{spec}': {error}") from error
    if not listing.samples:
        raise DataError(f"'{spec}' holds no images")
    return listing


def parse_spec(spec: str) -> tuple[str, Path, str]:
    """Split ``ADAPTER:ROOT[:REST]``; ``DataError`` where the adapter or the root is missing."""
    name, _, rest = spec.partition(':')
    root, split = split_root(rest)
    if name not in ADAPTERS or not root:
        raise DataError(
            f"'{spec}' is no data set; write ADAPTER:ROOT[:SPLIT[:ONLY]] with one of "
            f'{list(ADAPTERS)}'
        )
    return name, user_path(root), split


def split_root(text: str) -> tuple[str, str]:
    """Split ``ROOT[:REST]``: the longest folder that there is, or all before the first colon."""
    parts = text.split(':')
    for count in range(len(parts), 1, -1):
        root = ':'.join(parts[:count])
        if user_path(root).is_dir():
            return root, ':'.join(parts[count:])
    return parts[0], ':'.join(parts[1:])


# -- the user's own folders ------------------------------------------------------------------


def folder(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """
    ``ROOT/images`` with ``ROOT/labels`` beside it; the third part is the light, if known.

    Labels are ids of the taxonomy in use, or of that in ``ROOT/taxonomy.json``.
    """
    return list_pairs(
        root, 'images/{name}.*', 'labels/{name}.png', _own(root, taxonomy),
        light=check_light(light), source=_camera,
    )  # fmt: skip


def images(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """Take a plain folder of images without labels; the third part is the light, if known."""
    return list_pairs(root, '{name}.*', light=check_light(light), source=_camera)


def paired(root: Path, rest: str, taxonomy: Taxonomy) -> Listing:
    """
    Take the images of ROOT that have labels in another folder: ``paired:ROOT:LABELS[:LIGHT]``.

    Labels are ids of the taxonomy in use, or of that in ``LABELS/taxonomy.json``.
    """
    where, light = split_root(rest)
    labels = user_path(where)
    if not where or not labels.is_dir():
        raise DataError(f"there is no folder '{where}' with labels")
    listing = images(root, light, taxonomy)
    meaning = _own(labels, taxonomy)
    guesses = labels / SCENE
    keep = [i for i, s in enumerate(listing.samples) if (labels / f'{s.image.stem}.png').is_file()]
    stems = {sample.image.stem for sample in listing.samples}
    return Listing(
        samples=[
            replace(
                sample,
                label=LabelFile(labels / f'{sample.image.stem}.png', meaning),
                scene=LabelFile(guesses / f'{sample.image.stem}.png', meaning)
                if guesses.is_dir()
                else None,
            )
            for sample in (listing.samples[i] for i in keep)
        ],
        fields=[listing.fields[i] for i in keep],
        unlabelled=[],
        orphans=[p for p in sorted(labels.glob('*.png')) if p.stem not in stems],
    )


def source_of(stem: str) -> str:
    """Return the camera that a file name tells: its part before the first `_` or digit."""
    head = stem.split('_')[0]
    return head if head and not head[0].isdigit() else 'unnamed'


def _camera(fields: Fields) -> str:
    return source_of(fields['name'])


def _own(root: Path, taxonomy: Taxonomy) -> LabelMap:
    """Return what the ids of a user's own labels mean."""
    file = root / 'taxonomy.json'
    if not file.is_file():
        return label_map(own_ids(taxonomy), taxonomy)
    try:
        own = Taxonomy.from_dict(json.loads(file.read_text(encoding='utf-8')))
    except (ValueError, TaxonomyError) as error:
        raise DataError(f"'{file}' is no taxonomy: {error}") from error
    return label_map(own_ids(own), taxonomy)


def _selectable(adapter: Adapter) -> Adapter:
    """Make ``SPLIT[:ONLY]`` of an adapter's SPLIT."""

    def select(root: Path, rest: str, taxonomy: Taxonomy) -> Listing:
        split, _, only = rest.partition(':')
        listing = adapter(root, split, taxonomy)
        return listing.only(only) if only else listing

    return select


ADAPTERS: dict[str, Adapter] = {
    'folder': folder,
    'images': images,
    'paired': paired,
    **{name: _selectable(adapter) for name, adapter in PUBLISHED.items()},
}
