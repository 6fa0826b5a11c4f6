# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Data sets by name: a table of layouts, and one reader that turns them into samples.

A layout is a pair of patterns, which tell the label image of each picture.

Of published data sets ROOT is the folder that the downloads unpack into. Licences differ:
comma10k's is MIT; read the others' before weights that were trained on them leave the house.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
import glob
import json
from pathlib import Path
import re
from unicodedata import normalize

from nightseg_ros.config import did_you_mean
from nightseg_ros.data.sample import (
    CAMVID32_COLORS,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    COMMA10K_COLORS,
    DataError,
    Encoding,
    IMAGE_SUFFIXES,
    label_files,
    label_map,
    LabelFile,
    own_ids,
    Sample,
    SCENE,
    SEGNET_IDS,
)
from nightseg_ros.files import LOG, read_text, user_path
from nightseg_ros.taxonomy import CAMVID11, Taxonomy

LIGHTS = ('day', 'dusk', 'night')
#: Every picture, sorted by path, ``label`` being where its labels should be; and the label images
#: without a picture.
Listing = tuple[list[Sample], list[Path]]


def open_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> list[Sample]:
    """
    Return the samples of ``ADAPTER:ROOT[:SPLIT[:ONLY]]``, sorted by path.

    ``read_labels`` gives their labels as ids of ``taxonomy``, whatever the data set stores;
    classes that it lacks become 255. ONLY keeps one light (day, dusk, night), drive or city.
    ``DataError`` names an unknown adapter, a folder that is missing, one without images, images
    whose labels are missing, and labels that say nothing in the taxonomy.
    """
    samples, _ = list_dataset(spec, taxonomy)
    unlabelled = [s for s in samples if s.label is not None and not s.label.path.is_file()]
    if unlabelled:
        others = f', and {len(unlabelled) - 1} others' * (len(unlabelled) > 1)
        raise DataError(
            f"image '{unlabelled[0].image}' has no labels '{unlabelled[0].label}'{others}; "
            f'nightseg data check {spec} lists them'
        )
    return samples


def open_all(specs: Sequence[str], taxonomy: Taxonomy = CAMVID11) -> list[Sample]:
    """Return the samples of several data sets in their order."""
    return [sample for spec in specs for sample in open_dataset(spec, taxonomy)]


def list_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> Listing:
    """Return what lies in a data set's folders, missing labels and pictures included."""
    name, root, rest = parse_spec(spec)
    try:
        if name in PUBLISHED:
            split, _, only = rest.partition(':')
            samples, orphans = _published(name, root, split, only, taxonomy)
        else:
            samples, orphans = OWN[name](root, rest, taxonomy)
    except DataError as error:
        raise DataError(f"'{spec}': {error}") from error
    if not samples:
        raise DataError(f"'{spec}' holds no images")
    return samples, orphans


def parse_spec(spec: str) -> tuple[str, Path, str]:
    """Split ``ADAPTER:ROOT[:REST]``; ``DataError`` where the adapter or the root is missing."""
    name, _, rest = spec.partition(':')
    root, split = _split_root(rest)
    if name not in ADAPTERS or not root:
        raise DataError(
            f"'{spec}' is no data set; write ADAPTER:ROOT[:SPLIT[:ONLY]] with one of "
            f'{", ".join(ADAPTERS)}{did_you_mean(name, ADAPTERS)}'
        )
    if split.startswith(('/', '\\')) and not user_path(root).is_dir():
        # C:\DATA, or a folder with a colon that is not there
        raise DataError(f"'{spec}': there is no folder '{rest}'")
    return name, user_path(root), split


def _split_root(text: str) -> tuple[str, str]:
    """Split ``ROOT[:REST]``: the longest folder that there is, or all before the first colon."""
    parts = text.split(':')
    folders = (n for n in range(len(parts), 1, -1) if user_path(':'.join(parts[:n])).is_dir())
    count = next(folders, 1)
    return ':'.join(parts[:count]), ':'.join(parts[count:])


# -- where files lie -------------------------------------------------------------------------

#: What the fields of a pattern were in a path, such as {'source': 'aachen', 'name': 'a_1'}.
Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """
    Where the pictures of a data set and their labels lie.

    Patterns are relative paths in which ``{field}`` stands for a part of a name: that of
    ``{split}`` is given, any other is anything, and the same in both patterns. An ending ``.*``
    is any of ``IMAGE_SUFFIXES``.
    """

    images: str
    labels: str = ''
    encoding: Encoding | None = None
    """None where there are no labels."""
    light: str | None | Mapping[str, str] | Callable[[Path], Mapping[str, str]] = None
    """That of every picture, or a table from the field ``{light}``, the name, the source or the
    split, '' standing for all others."""
    source: str | Callable[[Fields], str] = ''
    """Every picture's; the field ``{source}`` if ''."""
    splits: str = '*'
    """Splits that lie so, as for ``fnmatch``."""
    unlabelled: str | None = None
    """Split whose labels are not published."""
    names: str = '[^/]+'
    """Regular expression of the field ``{name}``."""


def _drive(fields: Fields) -> str:
    return fields['name'].split('_')[0]


def _device(fields: Fields) -> str:
    """Return the camera of a name of comma10k's: NUMBER_DEVICE_DATE--TIME_…."""
    return (fields['name'].split('_') + [''])[1] or 'comma10k'


def _bdd_lights(root: Path) -> dict[str, str]:
    """Return the light of each image name; images of one split lie in the JSON of another."""
    known = {'daytime': 'day', 'dawn/dusk': 'dusk', 'night': 'night'}
    lights = {}
    for split in ('train', 'val'):
        names = (f'bdd100k_labels_images_{split}.json', f'det_20/det_{split}.json')
        files = [root / 'labels' / name for name in names if (root / 'labels' / name).is_file()]
        for file in files[:1]:
            try:
                frames = json.loads(file.read_bytes())
                for frame in frames if isinstance(frames, list) else frames['frames']:
                    time = (frame.get('attributes') or {}).get('timeofday')
                    if time in known:
                        lights[Path(frame['name']).stem] = known[time]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"'{file}' is no list of BDD100K frames: {error!r}") from error
    return lights


_CAMVID = partial(Layout, light={'0001TP': 'dusk', 'dusk': 'dusk', '': 'day'}, source=_drive)
_BDD = partial(Layout, light=_bdd_lights, source='bdd100k', unlabelled='test')
_ACDC = 'rgb_anon/{light}/{split}/{source}/{name}_rgb'
_ACDC_LIGHTS = {'night': 'night', 'fog': 'day', 'rain': 'day', 'snow': 'day'}
_ZURICH = 'rgb_anon/{split}/{light}/{source}/{name}'
_ZURICH_LIGHTS = {'day': 'day', 'twilight': 'dusk', 'night': 'night'}
_COMMA10K = partial(Layout, 'imgs/{name}.png', 'masks/{name}.png', COMMA10K_COLORS, None, _device)

#: The layouts of ``ADAPTER:ROOT:SPLIT``: of those for a split the first whose folders are there.
#: ONLY is a light, or what the source is: a drive, a city, a camera.
PUBLISHED: dict[str, tuple[Layout, ...]] = {
    # 11 classes; the last is SegNet's copy. Settings are chosen on a drive not trained on
    'camvid': (
        _CAMVID('{split}/images/{name}.*', '{split}/labels/{name}.png', own_ids(CAMVID11)),
        _CAMVID('{split}/{name}.*', '{split}annot/{name}.png', SEGNET_IDS),
    ),
    # 32 classes as coloured *_L.png: the original folders, or those of a split
    'camvid32': (
        _CAMVID(
            '701_StillsRaw_full/{name}.*', 'LabeledApproved_full/{name}_L.png', CAMVID32_COLORS,
            splits='',
        ),
        _CAMVID('{split}/{name}.*', '{split}_labels/{name}_L.png', CAMVID32_COLORS, splits='?*'),
    ),
    # the published labels of the test cities hold void; or pictures of a city and train ids alone
    'cityscapes': (
        Layout(
            'images/{name}.*', 'labels/{name}.png', CITYSCAPES_TRAIN_IDS, 'day', _drive, splits=''
        ),
        Layout(
            'leftImg8bit/{split}/{source}/{name}_leftImg8bit.png',
            'gtCoarse/{split}/{source}/{name}_gtCoarse_labelIds.png', CITYSCAPES_IDS, 'day',
            splits='train_extra',
        ),
        Layout(
            'leftImg8bit/{split}/{source}/{name}_leftImg8bit.png',
            'gtFine/{split}/{source}/{name}_gtFine_labelIds.png', CITYSCAPES_IDS, 'day',
            unlabelled='test',
        ),
    ),
    # 10,000 labelled images, the old release as well
    'bdd10k': (
        _BDD(
            'images/10k/{split}/{name}.jpg', 'labels/sem_seg/masks/{split}/{name}.png',
            CITYSCAPES_TRAIN_IDS,
        ),
        _BDD(
            'seg/images/{split}/{name}.jpg', 'seg/labels/{split}/{name}_train_id.png',
            CITYSCAPES_TRAIN_IDS,
        ),
    ),
    # 100,000 images without masks
    'bdd100k': (_BDD('images/100k/{split}/{name}.jpg'),),
    # four conditions, of which night is night; *_ref are the same places in good daylight
    'acdc': (
        Layout(
            f'{_ACDC}_ref_anon.png', 'gt/{light}/{split}/{source}/{name}_gt_ref_labelTrainIds.png',
            CITYSCAPES_TRAIN_IDS, 'day', splits='*_ref',
        ),
        Layout(f'{_ACDC}_ref_anon.png', light='day', splits='*_ref'),
        Layout(
            f'{_ACDC}_anon.png', 'gt/{light}/{split}/{source}/{name}_gt_labelTrainIds.png',
            CITYSCAPES_TRAIN_IDS, _ACDC_LIGHTS, unlabelled='test',
        ),
    ),
    'dark_zurich': (
        Layout(
            f'{_ZURICH}_rgb_anon.png', 'gt/{split}/{light}/{source}/{name}_gt_labelTrainIds.png',
            CITYSCAPES_TRAIN_IDS, _ZURICH_LIGHTS, splits='val',
        ),
        Layout(f'{_ZURICH}.png', light=_ZURICH_LIGHTS),
    ),
    'nighttime_driving': (
        Layout(
            'leftImg8bit/{split}/night/{name}_leftImg8bit.png',
            'gtCoarse_daytime_trainvaltest/{split}/night/{name}_gtCoarse_labelTrainIds.png',
            CITYSCAPES_TRAIN_IDS, 'night', 'nighttime_driving',
        ),
    ),
    # NightCity, or NightCity-fine
    'nightcity': (
        Layout(
            'NightCity-images/images/{split}/{name}.*',
            'NightCity-label/label/{split}/{name}_labelIds.png', CITYSCAPES_IDS, 'night', _drive,
        ),
        Layout(
            '{split}/img/{name}.*', '{split}/lbl/{name}_trainIds.png', CITYSCAPES_TRAIN_IDS,
            'night', _drive,
        ),
    ),
    'kitti': (
        Layout(
            '{split}/image_2/{name}.png', '{split}/semantic/{name}.png', CITYSCAPES_IDS, 'day',
            'kitti', unlabelled='testing',
        ),
    ),
    # names that end in 9 are for validation
    'comma10k': (
        _COMMA10K(splits=''),
        _COMMA10K(splits='train', names='.*[^9]'),
        _COMMA10K(splits='val', names='.*9'),
    ),
}  # fmt: skip
_DEFAULT_SPLITS = {'nighttime_driving': 'test', 'kitti': 'training'}


def _published(name: str, root: Path, split: str, only: str, taxonomy: Taxonomy) -> Listing:
    split = split or _DEFAULT_SPLITS.get(name, '')
    layouts = [layout for layout in PUBLISHED[name] if fnmatchcase(split, layout.splits)]
    if not layouts:
        splits = ', '.join(layout.splits for layout in PUBLISHED[name] if layout.splits)
        raise DataError(f"it has the splits {splits}, got '{split}'")
    layouts = [replace(x, encoding=None) if x.unlabelled == split else x for x in layouts]
    given = {'split': split}
    layout = next((x for x in layouts if _is_there(root, x, given)), layouts[0])
    if not split and '{split}' in layout.images:
        raise DataError('it has splits; write ADAPTER:ROOT:SPLIT')
    return list_layout(root, layout, taxonomy, given, only)


def list_layout(
    root: Path, layout: Layout, taxonomy: Taxonomy, given: Fields, only: str = ''
) -> Listing:
    """
    List the pictures below ``root`` and their labels.

    ``given`` are the fields that are known. ``only`` keeps what has it for its light, its source
    or a field of its path. ``DataError`` names a folder that is missing, and lists the words that
    there are where nothing is of ``only``.
    """
    meaning = None if layout.encoding is None else label_map(layout.encoding, taxonomy)
    fixed = _filled(layout.images, given).partition('*')[0].rpartition('/')[0]
    if not (root / fixed).is_dir():
        raise DataError(f"there is no folder '{root / fixed}'")
    lights = layout.light(root) if callable(layout.light) else layout.light
    if not isinstance(lights, Mapping):
        lights = {'': lights} if lights else {}
    labels = [*_matches(root, layout.labels, given, layout.names)] if meaning else []
    wanted = {_key(fields): path for fields, path in labels}
    samples, known, used = [], set(), set()
    for fields, path in _matches(root, layout.images, given, layout.names):
        source = layout.source or fields['source']
        source = source(fields) if callable(source) else source
        words = [fields.get('light'), fields['name'], source, given.get('split')]
        light = next((lights[word] for word in words if word and word in lights), lights.get(''))
        there = wanted.get(_key(fields))
        used.add(there)
        known |= {word for word in (light, source) if word}
        if only and only not in (light, source, *fields.values()):
            continue
        label = None
        if meaning is not None:
            label = LabelFile(there or root / layout.labels.format(**given, **fields), meaning)
        samples.append(Sample(image=path, label=label, source=source, light=light))
    if only and not samples:
        raise DataError(f"nothing in it is of '{only}'; there is {', '.join(sorted(known))}")
    # of a.png and a.PNG one is not used; '' is in every name
    orphans = (path for _, path in labels if path not in used)
    return samples, [path for path in orphans if only in path.parts or only in path.name]


def _key(fields: Fields) -> tuple[tuple[str, str], ...]:
    # macOS and others write é in two ways
    return tuple(sorted((key, normalize('NFC', value)) for key, value in fields.items()))


def _matches(
    root: Path, pattern: str, given: Mapping[str, str], names: str
) -> Iterator[tuple[Fields, Path]]:
    """Yield fields and path of each visible file that matches, sorted by path; warn of others."""
    stem, _, suffix = pattern.rpartition('.')
    suffixes = IMAGE_SUFFIXES if suffix == '*' else (f'.{suffix}',)
    expression = ''
    for index, part in enumerate(re.split(r'\{(\w+)\}', stem)):
        if index % 2 == 0 or part in given:
            expression += re.escape(given[part] if index % 2 else part)
        else:
            expression += f'(?P<{part}>{names if part == "name" else "[^/]+"})'
    wanted = f'{_filled(stem, given)}.*'
    others: set[str] = set()
    for path in sorted(root.glob(wanted)):
        if path.name.startswith('.'):
            continue
        # cameras and Windows write .PNG
        if path.suffix.lower() in suffixes:
            match = re.fullmatch(expression, path.relative_to(root).with_suffix('').as_posix())
            if match:
                yield match.groupdict(), path
        elif suffix == '*' and path.is_file():
            others.add(path.suffix)
    if others:
        text = ', '.join(sorted(others))
        LOG.warning("'%s': not read: files %s", (root / wanted).parent, text)


def _is_there(root: Path, layout: Layout, given: Mapping[str, str]) -> bool:
    """Tell whether the folders of a layout exist."""
    patterns = [layout.images] if layout.encoding is None else [layout.images, layout.labels]
    return all(any(root.glob(_filled(x, given).rpartition('/')[0])) for x in patterns)


def _filled(pattern: str, given: Mapping[str, str]) -> str:
    """Return the glob of a pattern."""
    return re.sub(r'\{(\w+)\}', lambda m: glob.escape(given.get(m[1], '')) or '*', pattern)


# -- the user's own folders ------------------------------------------------------------------


def folder(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """``ROOT/images`` with ``ROOT/labels``: ids of ``ROOT/taxonomy.json`` where there is one."""
    own = own_encoding(root, taxonomy)
    layout = Layout('images/{name}.*', 'labels/{name}.png', own, _checked(light), _camera)
    return list_layout(root, layout, taxonomy, {})


def images(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """Take a plain folder of images without labels; the third part is the light, if known."""
    layout = Layout('{name}.*', light=_checked(light), source=_camera)
    return list_layout(root, layout, taxonomy, {})


def paired(root: Path, rest: str, taxonomy: Taxonomy) -> Listing:
    """``paired:IMAGES:LABELS[:LIGHT]``: ids of ``LABELS/taxonomy.json`` where there is one."""
    where, light = _split_root(rest)
    labels = user_path(where)
    if not where or not labels.is_dir():
        raise DataError(f"there is no folder '{where}' with labels")
    meaning = label_map(own_encoding(labels, taxonomy), taxonomy)
    scene = (labels / SCENE).is_dir()
    there = label_files(labels)
    samples = []
    for sample in images(root, light, taxonomy)[0]:
        path = there.pop(normalize('NFC', sample.image.stem), None)
        if path is not None:
            guess = LabelFile(labels / SCENE / path.name, meaning) if scene else None
            samples.append(replace(sample, label=LabelFile(path, meaning), scene=guess))
    return samples, [*there.values()]


def _checked(light: str) -> str | None:
    """Return the light, None for an empty one; ``DataError`` where it is no known light."""
    if light and light not in LIGHTS:
        raise DataError(f"light is one of {', '.join(LIGHTS)}, got '{light}'")
    return light or None


def _camera(fields: Fields) -> str:
    """Return the camera that a file name tells: its part before the first `_`, if no number."""
    head = _drive(fields)
    return head if head and not head[0].isdigit() else 'unnamed'


def own_encoding(root: Path, taxonomy: Taxonomy) -> Encoding:
    """Return what a user's own labels store: ids of the taxonomy in use, if not told otherwise."""
    file = root / 'taxonomy.json'
    try:
        if file.is_file():
            taxonomy = Taxonomy.from_dict(json.loads(read_text(file)))
    except (TypeError, ValueError) as error:
        raise DataError(f"'{file}' is no taxonomy: {error}") from error
    return own_ids(taxonomy)


OWN: dict[str, Callable[[Path, str, Taxonomy], Listing]] = {
    'folder': folder, 'images': images, 'paired': paired,
}  # fmt: skip
ADAPTERS = (*OWN, *PUBLISHED)
