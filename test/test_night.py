# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The physical night: sky, light, determinism, sizes, refusals and stylisation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_lights import lamp_color
from nightseg_ros.data.night_methods import mix_amplitude
from nightseg_ros.data.night_presets import (
    PRESETS,
    CameraRanges,
    LightRanges,
    NightConfig,
    NightPreset,
)
from nightseg_ros.data.night_scene import Role, read_scene, role_table, split_sky
from nightseg_ros.data.photometric import add_noise, jpeg
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19, UNLABELLED, Taxonomy, TaxonomyError

SKY = CAMVID11.id_of('sky')
ROAD = CAMVID11.id_of('road')
BUILDING = CAMVID11.id_of('building')
TREE = CAMVID11.id_of('tree')


def street(height: int = 120, width: int = 160, taxonomy: Taxonomy = CAMVID11):
    """Return a drawn day street: white sky, two façades, road, pavement, a car, a sign."""
    names = ('road', 'pavement') if 'pavement' in taxonomy.classes else ('road', 'sidewalk')
    road, pavement = (taxonomy.id_of(name) for name in names)
    sign = 'sign' if 'sign' in taxonomy.classes else 'traffic sign'
    image = np.full((height, width, 3), 235, np.uint8)
    labels = np.full((height, width), taxonomy.id_of('sky'), np.uint8)

    def paint(top, bottom, left, right, name_or_id, color):
        area = (
            slice(int(top * height), int(bottom * height)),
            slice(int(left * width), int(right * width)),
        )
        image[area] = color
        labels[area] = name_or_id if isinstance(name_or_id, int) else taxonomy.id_of(name_or_id)

    paint(0.2, 0.6, 0.0, 0.3, 'building', (120, 90, 80))
    paint(0.1, 0.6, 0.75, 1.0, 'building', (90, 90, 95))
    paint(0.5, 1.0, 0.0, 1.0, road, (95, 95, 98))
    paint(0.55, 1.0, 0.8, 1.0, pavement, (130, 128, 120))
    paint(0.45, 0.7, 0.35, 0.55, 'car', (150, 20, 20))
    paint(0.2, 0.5, 0.62, 0.64, 'pole', (60, 60, 60))
    paint(0.2, 0.3, 0.60, 0.66, sign, (200, 40, 40))
    image[: max(1, height // 20), : max(1, width // 20)] = 0
    labels[: max(1, height // 20), : max(1, width // 20)] = UNLABELLED
    return image, labels


def luma(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) @ [0.299, 0.587, 0.114]


def still(light: LightRanges, camera: CameraRanges) -> NightConfig:
    """Return a configuration of one look."""
    return NightConfig(
        mixture={'mine': 1.0},
        crossover=0.0,
        looks={'mine': NightPreset(light=light, camera=camera)},
    )


#: A camera without chance: nothing but exposure and tone.
PLAIN = CameraRanges(
    median=(60.0, 60.0), black=(0.0, 0.0), gamma=(2.2, 2.2), white=(2.0, 2.0), adapt=(0.0, 0.0),
    warmth=(0.0, 0.0), green=(0.0, 0.0), saturation=(1.0, 1.0), halo=(1e-6, 1e-6),
    streak=(0.0, 0.0), vignette=(0.0, 0.0), blur=(0.0, 0.0), motion=(0.0, 0.0),
    noise=(0.0, 0.0), chroma=(0.0, 0.0), jpeg=(99, 99),
)  # fmt: skip
#: Diffuse light alone.
DIFFUSE = LightRanges(
    ambient=(1.0, 1.0), flatten=(0.0, 0.0), sky=(0.1, 0.1), sky_glow=(0.0, 0.0), lamps=(0, 0),
    head_lamps=(0.0, 0.0), windows=(-1.0, -1.0), traffic=(0.0, 0.0), signals=(0.0, 0.0),
    glints=(0, 0), wet=(0.0, 0.0), tree=(1.0, 1.0), leaves=(-1.0, -1.0), ground=(1.0, 1.0),
    variety=(0.0, 0.0),
)  # fmt: skip


@pytest.mark.parametrize('look', sorted(PRESETS))
def test_inputs_are_untouched_and_the_same_generator_gives_the_same_night(look):
    image, labels = street()
    before = image.copy(), labels.copy()
    config = NightConfig.only(look)
    first = synthesize_night(image, labels, np.random.default_rng(4), config)
    again = synthesize_night(image, labels, np.random.default_rng(4), config)
    other = synthesize_night(image, labels, np.random.default_rng(5), config)
    assert first.shape == image.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize('look', ['street', 'dark', 'highway', 'suburb', 'wet'])
def test_the_sky_turns_from_the_brightest_to_a_dark_region(look):
    image, labels = street()
    sky = labels == SKY
    assert luma(image)[sky].mean() > 2 * luma(image)[~sky].mean()
    darker = 0
    for seed in range(12):
        night = luma(
            synthesize_night(image, labels, np.random.default_rng(seed), NightConfig.only(look))
        )
        assert np.median(night[sky]) < 0.75 * np.median(luma(image)[sky])
        darker += np.median(night[sky]) < 1.1 * np.median(night[labels == ROAD])
    assert darker >= 9


@pytest.mark.parametrize(('look', 'low', 'high'), [('dark', 3, 45), ('street', 50, 165)])
def test_auto_exposure_reaches_the_look_of_the_preset(look, low, high):
    image, labels = street()
    medians = [
        np.median(
            luma(
                synthesize_night(
                    image, labels, np.random.default_rng(seed), NightConfig.only(look)
                )
            )
        )
        for seed in range(16)
    ]
    assert low <= np.percentile(medians, 10) and np.percentile(medians, 90) <= high


def test_exposure_is_exact_without_lights_and_haze():
    image, labels = street()
    night = synthesize_night(image, labels, np.random.default_rng(0), still(DIFFUSE, PLAIN))
    assert np.median(luma(night)) == pytest.approx(60.0, abs=6.0)


def test_more_diffuse_light_lifts_what_no_lamp_reaches():
    image, labels = street()
    shade = labels == BUILDING
    levels = []
    for ambient in (0.01, 0.1, 1.0, 5.0):
        light = dataclasses.replace(
            DIFFUSE, ambient=(ambient, ambient), head_lamps=(2.0, 2.0), lamp_power=(1.0, 1.0)
        )
        night = luma(
            synthesize_night(image, labels, np.random.default_rng(2), still(light, PLAIN))
        )
        levels.append(night[shade].mean() / night[labels == ROAD].mean())
    assert levels == sorted(levels) and levels[-1] > 1.1 * levels[0]


def test_vegetation_follows_its_share_of_the_light():
    image, labels = street()
    labels[labels == BUILDING] = TREE
    levels = []
    for share in (0.1, 0.4, 1.5):
        light = dataclasses.replace(DIFFUSE, tree=(share, share))
        night = luma(
            synthesize_night(image, labels, np.random.default_rng(2), still(light, PLAIN))
        )
        levels.append(night[labels == TREE].mean())
    assert levels == sorted(levels) and levels[2] > 2 * levels[0]


def test_lit_windows_and_lamps_add_light():
    image, labels = street()
    image[40:50, 5:30] = 20
    dark = synthesize_night(image, labels, np.random.default_rng(3), still(DIFFUSE, PLAIN))
    light = dataclasses.replace(DIFFUSE, windows=(1.0, 1.0))
    lit = synthesize_night(image, labels, np.random.default_rng(3), still(light, PLAIN))
    assert luma(lit)[42:48, 8:28].mean() > luma(dark)[42:48, 8:28].mean() + 40
    many = dataclasses.replace(DIFFUSE, glints=(40, 40), traffic=(1.0, 1.0))
    shining = synthesize_night(image, labels, np.random.default_rng(3), still(many, PLAIN))
    assert (luma(shining) > 220).sum() > (luma(dark) > 220).sum()


def test_a_halo_spreads_the_light_of_lamps():
    image, labels = street()
    light = dataclasses.replace(DIFFUSE, glints=(30, 30))
    sharp = luma(synthesize_night(image, labels, np.random.default_rng(1), still(light, PLAIN)))
    camera = dataclasses.replace(PLAIN, halo=(0.3, 0.3))
    hazy = luma(synthesize_night(image, labels, np.random.default_rng(1), still(light, camera)))
    assert hazy.mean() > sharp.mean() + 1.0
    assert (hazy >= sharp - 2.0).mean() > 0.99


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 61), st.integers(1, 77), st.integers(0, 2**32 - 1))
def test_any_size_any_labels(height, width, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = rng.integers(0, 12, (height, width), dtype=np.uint8)
    labels[labels == 11] = UNLABELLED
    with np.errstate(all='raise', under='ignore'):
        night = synthesize_night(image, labels, rng)
    assert night.shape == image.shape and night.dtype == np.uint8


@pytest.mark.parametrize('label', [SKY, ROAD, BUILDING, UNLABELLED])
@pytest.mark.parametrize('value', [0, 255])
def test_one_class_and_flat_images(label, value):
    image = np.full((37, 53, 3), value, np.uint8)
    labels = np.full((37, 53), label, np.uint8)
    for seed in range(6):
        with np.errstate(all='raise', under='ignore'):
            night = synthesize_night(image, labels, np.random.default_rng(seed))
        assert night.shape == image.shape


def test_large_images_repeat_the_noise():
    image = np.full((800, 1000, 3), 100, np.uint8)
    noisy = add_noise(image, 5.0, 0.0, np.random.default_rng(0)).astype(float)
    assert noisy.shape == image.shape
    assert noisy.std() == pytest.approx(5.0, rel=0.15)
    assert noisy.mean() == pytest.approx(100.0, abs=0.5)


def test_jpeg_keeps_the_channel_order():
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    red, _, blue = jpeg(image, 95).reshape(-1, 3).mean(axis=0)
    assert red > 180 and blue < 20


def test_class_ids_come_from_the_taxonomy():
    image, labels = street(taxonomy=CITYSCAPES19)
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


def test_leaves_close_the_gaps_of_crowns_only():
    image, labels = street()
    labels[: image.shape[0] // 2, 60:90] = TREE  # a crown that shows nothing but sky
    crown = labels == TREE
    bare = synthesize_night(image, labels, np.random.default_rng(1), still(DIFFUSE, PLAIN))
    light = dataclasses.replace(DIFFUSE, leaves=(1.0, 1.0))
    green = synthesize_night(image, labels, np.random.default_rng(1), still(light, PLAIN))
    # leaves of one light vary, the sky hardly does
    assert luma(green)[crown].std() > 2 * luma(bare)[crown].std()
    sky = labels == SKY
    assert luma(green)[sky].std() == pytest.approx(luma(bare)[sky].std(), rel=0.5)


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


def test_bad_arguments_are_named():
    image, labels = street()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='image must be uint8'):
        synthesize_night(image.astype(np.float32), labels, rng)
    with pytest.raises(ValueError, match='labels must be uint8'):
        synthesize_night(image, labels[:-1], rng)
    with pytest.raises(ValueError, match='not empty'):
        synthesize_night(image[:0], labels[:0], rng)
    with pytest.raises(ConfigError, match='moonlight'):
        from_mapping(NightConfig, {'mixture': {'moonlight': 1.0}})
    with pytest.raises(ConfigError, match='above 0'):
        from_mapping(NightConfig, {'mixture': {'dark': 0.0}})
    with pytest.raises(ConfigError, match='median'):
        from_mapping(NightConfig, {'looks': {'x': {'camera': {'median': [9.0, 3.0]}}}})
    with pytest.raises(ConfigError, match='crossover'):
        from_mapping(NightConfig, {'crossover': 2.0})


def test_the_config_survives_a_file():
    config = still(DIFFUSE, PLAIN)
    assert from_mapping(NightConfig, to_mapping(config)) == config
    assert from_mapping(NightConfig, {}) == NightConfig()


def test_a_look_replaces_the_preset_of_its_name():
    image, labels = street()
    replaced = NightConfig(
        mixture={'dark': 1.0},
        crossover=0.0,
        looks={'dark': NightPreset(light=DIFFUSE, camera=PLAIN)},
    )
    np.testing.assert_array_equal(
        synthesize_night(image, labels, np.random.default_rng(1), replaced),
        synthesize_night(image, labels, np.random.default_rng(1), still(DIFFUSE, PLAIN)),
    )


@pytest.mark.parametrize('size', [(120, 160), (61, 47), (1, 1), (2, 5)])
def test_amplitudes_bring_the_mean_and_keep_the_structure(size):
    image, _ = street(*size)
    reference = np.full((33, 41, 3), (20, 60, 40), np.uint8)
    flat = np.full((*size, 3), 180, np.uint8)
    # beta 0 swaps the mean alone
    mixed = mix_amplitude(flat, reference, beta=0.0)
    np.testing.assert_allclose(mixed.mean(axis=(0, 1)), (20, 60, 40), atol=1.0)
    same = mix_amplitude(image, image, beta=0.02)
    np.testing.assert_allclose(same.astype(int), image, atol=1)
    unchanged = mix_amplitude(image, reference, beta=0.02, strength=0.0)
    np.testing.assert_allclose(unchanged.astype(int), image, atol=1)
    with pytest.raises(ValueError, match='beta'):
        mix_amplitude(image, reference, beta=0.7)
