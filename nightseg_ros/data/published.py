# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Published data sets: where each keeps its pictures and labels, in what code, and by what light.

ROOT is the folder that the downloads unpack into. Licences differ: comma10k's is MIT; read the
others' before weights that were trained on them leave the house.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from nightseg_ros.data.layout import Fields, Listing, list_pairs
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.vocabulary import (
    CAMVID32_COLORS,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    COMMA10K_COLORS,
    SEGNET_IDS,
    label_map,
    own_ids,
)
from nightseg_ros.taxonomy import CAMVID11, Taxonomy

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
