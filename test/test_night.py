# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The physical night: sky, light, determinism, sizes, refusals and stylisation."""

import dataclasses
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_lights import lamp_color
from nightseg_ros.data.night_presets import (
    CameraRanges,
    LightRanges,
    NightConfig,
    NightPreset,
    PRESETS,
)
from nightseg_ros.data.night_scene import read_scene, Role, role_table, split_sky
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19, Taxonomy, TaxonomyError, UNLABELLED
import numpy as np
import pytest

SKY = CAMVID11.id_of('sky')
ROAD = CAMVID11.id_of('road')
BUILDING = CAMVID11.id_of('building')
TREE = CAMVID11.id_of('tree')


def street(taxonomy: Taxonomy = CAMVID11):
    """Return a drawn day street: white sky, two façades, road, pavement, a car, a sign."""
    cityscapes = {'pavement': 'sidewalk', 'sign': 'traffic sign'}
    image = np.full((120, 160, 3), 235, np.uint8)
    labels = np.full((120, 160), taxonomy.id_of('sky'), np.uint8)
    for top, bottom, left, right, name, color in (
        (24, 72, 0, 48, 'building', (120, 90, 80)),
        (12, 72, 120, 160, 'building', (90, 90, 95)),
        (60, 120, 0, 160, 'road', (95, 95, 98)),
        (66, 120, 128, 160, 'pavement', (130, 128, 120)),
        (54, 84, 56, 88, 'car', (150, 20, 20)),
        (24, 60, 99, 102, 'pole', (60, 60, 60)),
        (24, 36, 96, 105, 'sign', (200, 40, 40)),
    ):
        image[top:bottom, left:right] = color
        known = name if name in taxonomy.classes else cityscapes[name]
        labels[top:bottom, left:right] = taxonomy.id_of(known)
    image[:6, :8] = 0
    labels[:6, :8] = UNLABELLED
    return image, labels


def luma(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) @ [0.299, 0.587, 0.114]


def night_of(
    image: np.ndarray, labels: np.ndarray, seed: int, config: NightConfig | None = None
) -> np.ndarray:
    return synthesize_night(image, labels, np.random.default_rng(seed), config)


@pytest.mark.parametrize('look', sorted(PRESETS))
def test_a_preset_makes_repeatable_nights_with_a_dark_sky(look):
    image, labels = street()
    before = image.copy(), labels.copy()
    config = NightConfig(mixture={look: 1.0})
    nights = [night_of(image, labels, seed, config) for seed in range(12)]
    assert nights[0].shape == image.shape and nights[0].dtype == np.uint8
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])
    np.testing.assert_array_equal(nights[4], night_of(image, labels, 4, config))
    assert (nights[4] != nights[5]).any()
    medians = [float(np.median(luma(night))) for night in nights]
    low, high = {'dark': (3, 45), 'street': (50, 165)}.get(look, (0, 255))
    assert low <= np.percentile(medians, 10) and np.percentile(medians, 90) <= high
    if look == 'twilight':
        return
    sky = labels == SKY
    skies = [np.median(luma(night)[sky]) for night in nights]
    assert max(skies) < 0.75 * np.median(luma(image)[sky])
    roads = [np.median(luma(night)[labels == ROAD]) for night in nights]
    assert sum(a < 1.1 * b for a, b in zip(skies, roads)) >= 9


def fixed(ranges: type[Any], **values: float) -> Any:
    """Return ranges without chance; what is not given is 0."""
    return ranges(**{f.name: (values.get(f.name, 0),) * 2 for f in dataclasses.fields(ranges)})


def brightness(
    image: np.ndarray, labels: np.ndarray, halo: float = 1e-6, **lights: float
) -> np.ndarray:
    """Return the luma of a night without chance, of diffuse light and ``lights`` alone."""
    light = fixed(LightRanges, **{'ambient': 1, 'sky': 0.1, 'tree': 1, 'ground': 1, **lights})
    tone = {'median': 60, 'gamma': 2.2, 'white': 2, 'saturation': 1, 'jpeg': 99}
    preset = NightPreset(light=light, camera=fixed(CameraRanges, halo=halo, **tone))
    with patch.dict(PRESETS, dark=preset):
        return luma(night_of(image, labels, 2, NightConfig(mixture={'dark': 1.0})))


def test_each_light_does_what_it_says():
    image, labels = street()
    image[40:50, 5:30] = 20
    plain = brightness(image, labels)
    assert np.median(plain) == pytest.approx(60.0, abs=6.0)  # exposure is exact
    shade, road = labels == BUILDING, labels == ROAD
    levels = []
    for ambient in (0.01, 0.1, 1.0, 5.0):
        night = brightness(image, labels, ambient=ambient, head_lamps=2.0, lamp_power=1.0)
        levels.append(night[shade].mean() / night[road].mean())
    assert levels == sorted(levels) and levels[-1] > 1.1 * levels[0]
    lit = brightness(image, labels, windows=1.0)
    assert lit[42:48, 8:28].mean() > plain[42:48, 8:28].mean() + 40
    wet = brightness(image, labels, windows=1.0, wet=1.0)
    assert wet[road].mean() > lit[road].mean() + 3
    sharp = brightness(image, labels, glints=40, traffic=1.0)
    assert (sharp > 220).sum() > (plain > 220).sum()
    hazy = brightness(image, labels, halo=0.3, glints=40, traffic=1.0)
    assert hazy.mean() > sharp.mean() + 1.0 and (hazy >= sharp - 2.0).mean() > 0.99


def test_vegetation_follows_its_share_of_the_light_and_grows_leaves():
    image, labels = street()
    trees = np.where(labels == BUILDING, TREE, labels).astype(np.uint8)
    levels = [brightness(image, trees, tree=s)[trees == TREE].mean() for s in (0.1, 0.4, 1.5)]
    assert levels == sorted(levels) and levels[2] > 2 * levels[0]
    labels[: image.shape[0] // 2, 60:90] = TREE  # a crown that shows nothing but sky
    bare, green = brightness(image, labels), brightness(image, labels, leaves=1.0)
    # leaves of one light vary, the sky hardly does
    assert green[labels == TREE].std() > 2 * bare[labels == TREE].std()
    assert green[labels == SKY].std() < 0.2 * green[labels == TREE].std()


@settings(max_examples=30)
@given(
    size=st.tuples(st.integers(1, 61), st.integers(1, 77)),
    seed=st.integers(0, 2**32 - 1),
    flat=st.sampled_from([None, 0, 255]),
    label=st.sampled_from([None, SKY, ROAD, BUILDING, UNLABELLED]),
)
def test_any_size_any_labels_any_picture(size, seed, flat, label):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    image = image if flat is None else np.full_like(image, flat)
    labels = rng.integers(0, 12, size, dtype=np.uint8)
    labels[labels == 11] = UNLABELLED
    labels = labels if label is None else np.full_like(labels, label)
    with np.errstate(all='raise', under='ignore'):
        night = synthesize_night(image, labels, rng)
    assert night.shape == image.shape and night.dtype == np.uint8


def test_class_ids_come_from_the_taxonomy():
    image, labels = street(CITYSCAPES19)
    camvid_image, camvid_labels = street()
    same = synthesize_night(image, labels, np.random.default_rng(8), taxonomy=CITYSCAPES19)
    reference = synthesize_night(camvid_image, camvid_labels, np.random.default_rng(8))
    np.testing.assert_array_equal(same, reference)
    blind = Taxonomy(name='blind', classes=('road',), colors=((1, 1, 1),))
    with pytest.raises(TaxonomyError, match='sky'):
        synthesize_night(image, labels, np.random.default_rng(8), taxonomy=blind)


def test_the_matte_keeps_twigs_and_fills_gaps_in_crowns():
    linear = np.full((96, 128, 3), 0.8, np.float32)
    labels = np.full((96, 128), SKY, np.uint8)
    linear[48:] = 0.05
    labels[48:] = ROAD
    linear[20, :60] = 0.05  # a wire that the label calls sky
    labels[10:48, 80:120] = TREE
    linear[10:48, 80:120:2] = 0.03  # a bare crown: every second column shows the sky
    scene = read_scene(labels, role_table(CAMVID11), np.random.default_rng(0))
    alpha, before = split_sky(linear, scene)
    assert alpha[5:15, 5:60].min() > 0.95
    assert alpha[20, 5:55].max() < 0.2
    assert alpha[60:].max() < 0.05
    assert alpha[14:30, 85:115:2].min() > 0.6
    assert alpha[14:30, 86:115:2].max() < 0.2
    assert before.min() >= 0.0 and (before <= linear + 1e-6).all()
    assert before[5:15, 5:60].max() < 0.05


def test_the_scene_puts_near_things_near():
    _, labels = street()
    scene = read_scene(labels, role_table(CAMVID11), np.random.default_rng(0))
    middle = scene.coarse.shape[1] // 2
    road = [row for row in range(scene.coarse.shape[0]) if scene.coarse[row, 2] == Role.ROAD]
    depth = scene.z[road, 2]
    assert (np.diff(depth) <= 0).all() and depth[-1] < 8.0
    assert scene.y[scene.ground].max() == 0.0
    assert scene.y[0, middle] > 3.0
    assert 0.4 * 120 < scene.horizon < 0.6 * 120
    row, column = int(road[-1]), 2
    u, v = scene.project(*(float(a[row, column]) for a in (scene.x, scene.y, scene.z)))
    assert (int(v) // 4, int(u) // 4) == (row, column)


def test_lamp_colors_go_from_orange_to_blue_at_one_luminance():
    warm, cold = lamp_color(2000.0), lamp_color(8000.0)
    assert warm[0] > warm[1] > warm[2] and cold[2] > cold[0]
    for kelvin in (1500.0, 2400.0, 3300.0, 5000.0, 12000.0):
        assert float(lamp_color(kelvin) @ [0.2126, 0.7152, 0.0722]) == pytest.approx(1.0, abs=0.06)
