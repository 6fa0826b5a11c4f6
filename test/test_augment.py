# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Joint augmentation: image and labels stay aligned, void stays void, ids stay ids."""

import dataclasses

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.data import photometric
from nightseg_ros.data.augment import (
    augment,
    AugmentConfig,
    distort,
    flip,
    hide_unlit,
    pad,
    PADDING,
    PhotometricConfig,
    scale_and_crop,
)
from nightseg_ros.data.night_presets import NightConfig
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED
import numpy as np
import pytest

IDS = np.array([0, 1, 3, 5, 8, UNLABELLED], np.uint8)


def coded(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return large blobs of labels and an image whose colour tells the label."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, len(IDS), (max(1, height // 24), max(1, width // 24)), dtype=np.uint8)
    labels = IDS[cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)]
    return np.repeat(code(labels)[..., None], 3, axis=2), labels


def code(labels: np.ndarray) -> np.ndarray:
    table = np.zeros(256, np.uint8)
    table[IDS] = np.arange(len(IDS)) * 40 + 20
    return table[labels]


def interior(labels: np.ndarray) -> np.ndarray:
    """Return the mask of pixels whose surroundings have one label."""
    kernel = np.ones((5, 5), np.uint8)
    same = cv2.erode(labels, kernel) == cv2.dilate(labels, kernel)
    # what lies beyond the edge of a crop may be another class, and the edge holds some of it
    within = np.zeros_like(same)
    within[2:-2, 2:-2] = True
    return same & within


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 190)),
    crop=st.tuples(st.integers(1, 120), st.integers(1, 130)),
    low=st.floats(0.3, 1.5),
    span=st.floats(1.0, 3.0),
    seed=st.integers(0, 2**31),
)
def test_image_and_labels_stay_aligned(size, crop, low, span, seed):
    image, labels = coded(*size, seed)
    before = image.copy(), labels.copy()
    rng = np.random.default_rng(seed)
    config = AugmentConfig(crop=crop, scale=(low, low * span))
    two = cv2.merge((labels, labels))
    both = scale_and_crop(image, two, np.random.default_rng(seed), config)[1]
    cut, classes = scale_and_crop(image, labels, rng, config)
    # a second layer, such as a guess for every pixel, moves with the labels
    np.testing.assert_array_equal(both, cv2.merge((classes, classes)))
    assert cut.shape[:2] == classes.shape
    assert cut.shape[0] <= crop[0] and cut.shape[1] <= crop[1]
    assert set(np.unique(classes)) <= set(np.unique(labels))
    if rng.random() < 0.5:
        cut, classes = flip(cut, classes)
    inside = interior(classes)
    assert np.abs(cut[inside][:, 0].astype(int) - code(classes)[inside]).max(initial=0) <= 1
    framed, padded = pad(cut, classes, crop, rng)
    assert framed.shape == (*crop, 3) and padded.shape == crop
    added = (framed == PADDING).all(axis=2)
    # void stays void, and nothing but padding and void has the label 255
    assert (padded[added] == UNLABELLED).all()
    assert int((padded != UNLABELLED).sum()) == int((classes != UNLABELLED).sum())
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_scale_one_is_a_plain_cut():
    image, labels = coded(100, 140, 3)
    image[..., 1] = np.arange(140)[None, :]
    image[..., 2] = np.arange(100)[:, None]
    config = AugmentConfig(crop=(40, 60), scale=(1.0, 1.0))
    cut, classes = scale_and_crop(image, labels, np.random.default_rng(0), config)
    left, top = int(cut[0, 0, 1]), int(cut[0, 0, 2])
    np.testing.assert_array_equal(cut, image[top:, left:][:40, :60])
    np.testing.assert_array_equal(classes, labels[top:, left:][:40, :60])


@pytest.mark.parametrize(
    ('size', 'factor'), [((120, 200), 0.5), ((60, 40), 1.0), ((300, 400), 1.5)]
)
def test_a_long_side_makes_images_of_all_sizes_alike(size, factor):
    image, labels = coded(*size, 5)
    config = AugmentConfig(crop=(640, 640), scale=(factor, factor), long_side=200)
    cut, classes = scale_and_crop(image, labels, np.random.default_rng(0), config)
    assert max(cut.shape[:2]) == round(200 * factor)
    assert cut.shape[0] / cut.shape[1] == pytest.approx(size[0] / size[1], rel=0.02)
    # things grow with the image
    before, after = (float((x == 3).mean()) for x in (labels, classes))
    assert after == pytest.approx(before, abs=0.05)


def test_crops_avoid_a_single_class():
    labels = np.zeros((100, 400), np.uint8)
    labels[:, 180:] = 3
    labels[:, 220:] = 0
    image = np.zeros((100, 400, 3), np.uint8)
    plain = AugmentConfig(crop=(100, 60), scale=(1.0, 1.0), tries=1)
    picky = dataclasses.replace(plain, tries=12)

    def found(config):
        rng = np.random.default_rng(0)
        return sum((scale_and_crop(image, labels, rng, config)[1] == 3).any() for _ in range(100))

    assert found(picky) > found(plain) + 20


@pytest.mark.parametrize('night_share', [0.0, 1.0])
def test_a_sample_is_padded_with_the_neutral_colour(night_share):
    image, labels = coded(120, 160, 1)
    config = AugmentConfig(crop=(240, 320), scale=(0.5, 0.5), night_share=night_share)
    sample, classes = augment(image, labels, np.random.default_rng(9), config)
    assert sample.shape == (240, 320, 3) and classes.shape == (240, 320)
    assert sample.dtype == classes.dtype == np.uint8
    neutral = (sample == PADDING).all(axis=2)
    assert int(neutral.sum()) >= 240 * 320 - 60 * 80 - 50
    assert (classes[neutral] == UNLABELLED).mean() > 0.999


def test_a_night_is_made_by_the_scene_where_labels_have_gaps():
    """Pseudo-labels leave the rim of the sky open; no day sky may stay there at night."""
    image = np.full((120, 160, 3), (140, 140, 130), np.uint8)
    image[:60] = (200, 220, 250)
    scene = np.full((120, 160), 3, np.uint8)
    scene[:60] = 0
    labels = scene.copy()
    labels[10:50, 60:100] = UNLABELLED
    config = AugmentConfig(
        crop=(120, 160), scale=(1.0, 1.0), flip=0.0, night_share=1.0,
        night=NightConfig(mixture={'suburb': 1.0}),
    )  # fmt: skip
    seams = np.zeros((2, 8))
    for number, guess in enumerate((None, scene)):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            night, classes = augment(image, labels, rng, config, scene=guess)
            np.testing.assert_array_equal(classes, labels)
            inside, beside = night[20:40, 70:90], night[20:40, 30:50]
            seams[number, seed] = abs(np.median(inside) - np.median(beside))
    assert np.median(seams[1]) < 0.5 * np.median(seams[0])


def test_distortion_at_rest_is_nearly_the_identity():
    rest = PhotometricConfig(
        gain=(1.0, 1.0), gamma=(1.0, 1.0), curve_probability=1.0, cast=0.0, saturation=(1.0, 1.0),
        blur_probability=0.0, noise_probability=0.0, jpeg_probability=0.0, halo_probability=0.0,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        np.testing.assert_array_equal(distort(image, rng, rest), image)
    with pytest.raises(ValueError, match="'jpeg_probability' must be 0 to 1, got 30"):
        PhotometricConfig(jpeg_probability=30)


@pytest.mark.parametrize('gain', [0.15, 0.6, 1.5])
def test_the_curve_is_the_formula(gain):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    cast = (1.0, 0.8, 1.1)
    result = photometric.curve(image, gain=gain, gamma=1.4, cast=cast)
    wanted = 255.0 * gain * (image / 255.0) ** 1.4 * np.array(cast)
    np.testing.assert_allclose(result, np.clip(wanted, 0, 255), atol=0.6)


def test_filters_do_what_they_say():
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    red, _, blue = photometric.jpeg(image, 95).reshape(-1, 3).mean(axis=0)
    assert red > 180 and blue < 20
    # more than the tile of the noise
    image = np.full((800, 1000, 3), 100, np.uint8)
    noisy = photometric.add_noise(image, 5.0, 0.0, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(5.0, rel=0.15)
    assert noisy.mean() == pytest.approx(100.0, abs=0.5)
    image = np.random.default_rng(0).integers(60, 190, (20, 30, 3), dtype=np.uint8)
    grey = photometric.saturate(image, 0.0)
    np.testing.assert_allclose(grey[..., 0], image @ [0.299, 0.587, 0.114], atol=1.0)
    assert int(np.ptp(grey, axis=2).max()) <= 1
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:40, 24:40] = 255
    assert 0 < photometric.blur(image, 3.0)[22, 32, 0] < 255
    smeared = photometric.motion_blur(image, 9.0, 0.0)
    assert smeared[32, 22, 0] > 0 and smeared[20, 32, 0] == 0
    glowing = photometric.halo(image, 0.5)
    assert glowing[32, 20, 0] > 0 and glowing[32, 32, 0] == 255
    plain = np.full((240, 320, 3), 90, np.uint8)
    for strength in (0.0, 3.0):
        noisy = photometric.add_blotches(plain, strength, np.random.default_rng(0))
        colour = noisy.astype(np.float32) - noisy.mean(axis=2, keepdims=True)
        assert colour.std() == pytest.approx(strength, abs=0.4 + 0.25 * strength)
        # they are coarse: neighbours two pixels apart are still alike
        assert (colour[:, 2:] - colour[:, :-2]).std() <= max(0.1, colour.std())


def test_persons_in_the_dark_are_void_and_all_else_stays():
    labels = np.repeat(np.array([[9, 10, 8, 3]], np.uint8), 60, 0).repeat(20, 1)
    image = np.full((60, 80, 3), 4, np.uint8)
    image[30:] = 60
    hidden = hide_unlit(image, labels, 20.0, CAMVID11)
    assert (hidden[:28, :40] == 255).all()
    assert (hidden[32:] == labels[32:]).all() and (hidden[:, 40:] == labels[:, 40:]).all()
    assert hide_unlit(image, labels, 0.0, CAMVID11) is labels
