# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Intervals, calibration, flicker and routing against what is known of made-up frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.metrics import (
    BINS,
    BootstrapConfig,
    Flicker,
    SegmentationScores,
    calibration,
    difference,
    flicker,
    interval,
    reliability,
    resampled,
    rounded,
)
from nightseg_ros.evaluation.samples import Candidate, SampleChoice, select
from nightseg_ros.evaluation.sources import light_at, read_light
from nightseg_ros.evaluation.summary import FrameTable, durations, routing
from nightseg_ros.perception.frame import Frame
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED

SECOND = 1_000_000_000


# -- bootstrap -------------------------------------------------------------------------------


def test_an_interval_is_as_wide_as_theory_says() -> None:
    config = BootstrapConfig(resamples=4000)
    rng = np.random.default_rng(1)
    right = rng.binomial(100, 0.7, 400)
    units = np.stack([right, np.full(400, 100)], axis=1)
    sums = resampled(units, config)
    low, high = interval(sums[:, 0] / sums[:, 1], 400, config)  # type: ignore[misc]
    error = right.std() / 100 / np.sqrt(400)
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert low < right.mean() / 100 < high


def test_a_seed_gives_the_same_draws_and_another_one_others() -> None:
    units = np.arange(20).reshape(10, 2)
    one = resampled(units, BootstrapConfig(resamples=60))
    np.testing.assert_array_equal(one, resampled(units, BootstrapConfig(resamples=60)))
    assert (one != resampled(units, BootstrapConfig(resamples=60, seed=1))).any()
    assert (one != resampled(units, BootstrapConfig(resamples=60), stratum=1)).any()
    # every draw has as many units as there are
    np.testing.assert_array_equal(resampled(np.ones((7, 1)), BootstrapConfig())[:, 0], 7)


def test_pairing_makes_a_constant_gain_certain() -> None:
    """Frames differ far more than the two configurations, which differ on every frame alike."""
    rng = np.random.default_rng(0)
    base = rng.integers(100, 900, 50)
    config = BootstrapConfig(resamples=500)
    first, second = (
        resampled(np.stack([right, np.full(50, 1000)], axis=1), config)
        for right in (base, base + 10)
    )
    found = difference(0.51, 0.5, *(s[:, 0] / s[:, 1] for s in (second, first)), 50, config)
    assert found['ci'] == pytest.approx([0.01, 0.01])
    assert found['median'] == pytest.approx(0.01) and found['above_zero'] == 1


def test_one_unit_has_no_interval() -> None:
    assert interval(np.ones(10), 1, BootstrapConfig()) is None
    assert interval(np.full(10, np.nan), 5, BootstrapConfig()) is None


@pytest.mark.parametrize(
    'wrong', [{'unit': 'days'}, {'block_s': 0}, {'resamples': 1}, {'level': 1.0}]
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BootstrapConfig(**wrong)


def test_the_mean_of_sources_weighs_them_equally() -> None:
    """A source of 30 frames that scores 1 and one of 2 frames that scores 1/3."""
    good, bad = np.zeros((30, 11, 12), np.int64), np.zeros((2, 11, 12), np.int64)
    good[:, 0, 0] = 10
    bad[:, 3, 3], bad[:, 3, 0], bad[:, 0, 0] = 5, 5, 2
    scores = SegmentationScores(CAMVID11, BootstrapConfig(resamples=50))
    mean, values, units = scores.mean_of_sources([good, bad], 'frames')
    expected = (1 + (5 / 10 + 2 / 7) / 2) / 2
    assert mean == pytest.approx(expected) and units == 30
    np.testing.assert_allclose(values, expected)
    mean, values, units = scores.mean_of_sources([good, bad], 'sources')
    assert mean == pytest.approx(expected) and units == 2
    assert set(np.round(values, 6)) == {1.0, round(expected, 6), round(2 * expected - 1, 6)}


def test_an_entry_has_no_interval_for_an_absent_class() -> None:
    rng = np.random.default_rng(0)
    units = np.zeros((6, 11, 12), np.int64)
    units[:, :3, :3] = rng.integers(1, 50, (6, 3, 3))
    scores = SegmentationScores(CAMVID11, BootstrapConfig(resamples=50), ('sky', 'car'))
    entry, values = scores.entry(units)
    assert entry['iou']['car'] is None and entry['iou_ci']['car'] is None
    assert entry['miou_subset'] == entry['iou']['sky']
    assert entry['miou_ci'][0] <= entry['miou'] <= entry['miou_ci'][1]
    assert entry['confusion'] == units.sum(0)[:, :-1].tolist()
    assert values['miou'].shape == (50,)
    assert entry['support'] == dict(zip(CAMVID11.classes, units.sum((0, 2)).tolist()))
    assert set(entry['abstained'].values()) == {0}


def test_what_a_mask_abstained_from_is_told_by_class() -> None:
    units = np.zeros((1, 11, 12), np.int64)
    units[0, 3, 11], units[0, 3, 10], units[0, 5, 5] = 7, 2, 1
    entry, _ = SegmentationScores(CAMVID11, BootstrapConfig(resamples=10)).entry(units)
    assert entry['abstained'] == dict.fromkeys(CAMVID11.classes, 0) | {'road': 7}
    assert entry['support']['road'] == 9 and entry['iou']['road'] == 0


def test_a_subset_of_unknown_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="'camvid11' has no class 'unicorn'; it has sky"):
        SegmentationScores(CAMVID11, BootstrapConfig(), ('sky', 'unicorn'))


def test_sources_without_a_known_class_have_no_mean() -> None:
    scores = SegmentationScores(CAMVID11, BootstrapConfig(resamples=50))
    mean, values, units = scores.mean_of_sources([np.zeros((3, 11, 12), np.int64)], 'frames')
    assert np.isnan(mean) and np.isnan(values).all() and units == 0
    assert scores.interval(values, units) is None


def test_scores_are_written_with_four_digits_and_no_nan() -> None:
    values = {'a': [1 / 3, float('nan')], 'b': {'c': 2 / 3, 'd': 5, 'e': None, 'f': 'x'}}
    assert rounded(values) == {
        'a': [0.3333, None], 'b': {'c': 0.6667, 'd': 5, 'e': None, 'f': 'x'},
    }  # fmt: skip


# -- calibration -----------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(3))
def test_calibration_error_is_that_of_torchmetrics(seed: int) -> None:
    torch = pytest.importorskip('torch')
    reason = 'torchmetrics is not installed (requirements/test.txt)'
    torchmetrics = pytest.importorskip('torchmetrics.classification', reason=reason)
    rng = np.random.default_rng(seed)
    shape = (30, 40)
    truth = rng.integers(0, 2, shape).astype(np.uint8)
    labels = np.where(rng.random(shape) < 0.7, truth, 1 - truth).astype(np.uint8)
    # two classes: the winner's confidence is at least half; borders of bins are left to rounding
    levels = np.array([c for c in range(128, 255) if c % 17])
    confidence = levels[rng.integers(0, len(levels), shape)].astype(np.uint8)
    truth[rng.random(shape) < 0.1] = UNLABELLED
    found = calibration(reliability(truth, labels, confidence))
    known = truth != UNLABELLED
    top = torch.from_numpy(confidence[known] / 255)
    chosen = torch.from_numpy(labels[known].astype(np.int64))
    scores = torch.zeros(len(top), 2, dtype=torch.float64)
    scores[torch.arange(len(top)), chosen] = top
    scores[torch.arange(len(top)), 1 - chosen] = 1 - top
    error = torchmetrics.MulticlassCalibrationError(2, n_bins=BINS, norm='l1')
    expected = error(scores, torch.from_numpy(truth[known].astype(np.int64)))
    assert found is not None and found['pixels'] == known.sum()
    assert found['ece'] == pytest.approx(float(expected), abs=1e-4)


def test_a_confident_mask_that_is_right_is_calibrated() -> None:
    truth = np.array([[1, 2, UNLABELLED, 3]], np.uint8)
    labels = np.array([[1, 2, 0, UNLABELLED]], np.uint8)
    found = calibration(reliability(truth, labels, np.full_like(truth, 255)))
    assert found is not None
    assert (found['ece'], found['accuracy'], found['pixels']) == (0, 1, 2)
    assert found['bins'][-1]['pixels'] == 2 and found['bins'][0]['confidence'] is None
    assert calibration(np.zeros((BINS, 3), np.int64)) is None


def test_each_of_fifteen_bins_begins_at_its_own_confidence() -> None:
    """255 levels in 15 bins of 17: the first of a bin is in it, the one below is not."""
    for index in range(15):
        confidence = np.array([[17 * index, 17 * index + 16]], np.uint8)
        counts = reliability(np.zeros_like(confidence), np.zeros_like(confidence), confidence)
        assert counts[:, 0].tolist() == [2 * (bin == index) for bin in range(15)]


def test_calibration_by_hand() -> None:
    confidence = np.array([[51, 51, 52, 204]], np.uint8)
    labels = np.array([[1, 2, 3, 4]], np.uint8)
    truth = np.array([[1, 0, 0, 4]], np.uint8)
    found = calibration(reliability(truth, labels, confidence))
    assert found is not None
    low, high = (51 + 51 + 52) / 255, 204 / 255
    assert found['pixels'] == 4 and found['accuracy'] == 0.5
    assert found['confidence'] == round((low + high) / 4, 4)
    assert found['ece'] == round((abs(1 - low) + abs(1 - high)) / 4, 4)
    bins = found['bins']
    assert [one['low'] for one in bins] == [round(i / 15, 4) for i in range(15)]
    assert [one['high'] for one in bins] == [round(i / 15, 4) for i in range(1, 16)]
    assert bins[3] | {'low': 0, 'high': 0} == {
        'low': 0, 'high': 0, 'pixels': 3, 'confidence': 0.2013, 'accuracy': 0.3333,
    }  # fmt: skip
    assert (bins[12]['pixels'], bins[12]['confidence'], bins[12]['accuracy']) == (1, 0.8, 1.0)
    third = calibration(reliability(truth[:, :3], labels[:, :3], confidence[:, :3]))
    assert third is not None and third['accuracy'] == 0.3333


# -- flicker ---------------------------------------------------------------------------------


def textured(shift: int = 0) -> Frame:
    noise = np.random.default_rng(0).integers(0, 256, (90, 180), np.uint8)
    gray = cv2.GaussianBlur(noise, (9, 9), 2)
    gray = cv2.normalize(gray, None, 0, 255, cv2.NORM_MINMAX)
    image = cv2.merge([np.roll(gray, shift, 1)] * 3)
    return Frame(image=np.asarray(image, np.uint8), stamp_ns=shift * SECOND // 100)


def test_a_mask_that_moves_with_the_picture_does_not_flicker_when_warped() -> None:
    stripes = np.repeat(np.arange(18, dtype=np.uint8) % 3, 10)[None].repeat(90, 0)
    measure = Flicker()
    assert flicker(measure.add(textured(0), [stripes])[0]) is None
    counts = measure.add(textured(4), [np.roll(stripes, 4, 1)])
    found = flicker(counts[0])
    assert found is not None and found['pairs'] == 1
    assert found['plain'] == pytest.approx(0.4, abs=0.01)
    assert found['warped'] is not None and found['warped'] < 0.05


def test_a_mask_that_changes_under_a_still_picture_flickers() -> None:
    still = np.zeros((90, 180), np.uint8)
    half = still.copy()
    half[:45] = 1
    measure = Flicker()
    frame = textured()
    measure.add(frame, [still, still])
    later = Frame(image=frame.image, stamp_ns=SECOND // 10)
    steady, changed = (flicker(row) for row in measure.add(later, [still, half]))
    assert steady == {'pairs': 1, 'plain': 0, 'warped': 0}
    assert changed is not None and changed['plain'] == 0.5
    assert changed['warped'] == pytest.approx(0.5, abs=0.02)


EPOCH = 1_700_000_000 * SECOND
MOST = SECOND // 2


@pytest.mark.parametrize(
    ('later', 'pairs'), [(0, 0), (-SECOND, 0), (1, 1), (MOST, 1), (MOST + 1, 0), (SECOND, 0)]
)
def test_only_the_next_frame_within_half_a_second_is_a_neighbour(later: int, pairs: int) -> None:
    measure = Flicker()
    image = textured().image
    mask = np.zeros((90, 180), np.uint8)
    measure.add(Frame(image=image, stamp_ns=EPOCH), [mask])
    counts = measure.add(Frame(image=image, stamp_ns=EPOCH + later), [mask])
    # under a still picture every pixel has an origin
    assert counts[0].tolist() == [pairs, pairs * mask.size, 0, pairs * mask.size, 0]


@pytest.mark.parametrize('shape', [(90, 90), (45, 180)])
def test_a_frame_of_another_size_is_no_neighbour(shape: tuple[int, int]) -> None:
    measure = Flicker()
    image = textured().image
    mask = np.zeros((90, 180), np.uint8)
    measure.add(Frame(image=image, stamp_ns=0), [mask])
    other = image[: shape[0], : shape[1]]
    assert not measure.add(Frame(image=other, stamp_ns=1), [mask[: shape[0], : shape[1]]]).any()
    assert measure.add(Frame(image=other, stamp_ns=2), [mask[: shape[0], : shape[1]]]).any()


def test_flow_follows_what_is_bright_to_the_eye() -> None:
    """Red moves, blue stands still; the eye, and gray, take red for nearly three times blue."""
    red, blue = (textured().image[:, :, 0], np.ascontiguousarray(textured().image[::-1, :, 0]))
    stripes = np.repeat(np.arange(18, dtype=np.uint8) % 3, 10)[None].repeat(90, 0)
    for order in ('rgb', 'bgr'):
        measure = Flicker()
        for shift in (0, 4):
            planes = [np.roll(red, shift, 1), np.full_like(red, 128), blue]
            image = cv2.merge(planes if order == 'rgb' else planes[::-1])
            frame = Frame(image=np.asarray(image, np.uint8), order=order, stamp_ns=shift)
            counts = measure.add(frame, [np.roll(stripes, shift, 1)])
        found = flicker(counts[0])
        assert found is not None and found['warped'] is not None and found['warped'] < 0.1


@pytest.mark.parametrize(
    ('height', 'width', 'compared'), [(270, 480, 240 * 135), (60, 80, 60 * 80), (1, 480, 0)]
)
def test_masks_are_compared_at_a_width_of_240_at_most(
    height: int, width: int, compared: int
) -> None:
    measure = Flicker()
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for stamp in (0, 1):
        counts = measure.add(Frame(image=image, stamp_ns=stamp), [image[:, :, 0]])
    assert counts[0][1] == compared


def test_what_leaves_the_picture_is_not_compared() -> None:
    counts = []
    for shift in (0, 4, 12):
        measure = Flicker()
        for stamp, moved in enumerate((0, shift)):
            frame = Frame(image=np.roll(textured().image, moved, 1), stamp_ns=stamp)
            row = measure.add(frame, [np.zeros((90, 180), np.uint8)])[0]
        counts.append(int(row[3]))
    assert counts[0] == 180 * 90
    assert counts[1] < (180 - 2) * 90 and counts[2] < (180 - 6) * 90


def test_shares_of_flicker_are_rounded_and_may_be_unknown() -> None:
    counts = np.array([1, 3, 1, 7, 1])
    assert flicker(counts) == {'pairs': 1, 'plain': 0.33333, 'warped': 0.14286}
    assert flicker(np.array([2, 8, 4, 0, 0])) == {'pairs': 2, 'plain': 0.5, 'warped': None}


# -- routing ---------------------------------------------------------------------------------


def table(
    states: str, lights: str, stamps: list[float], shards: list[int] | None = None,
    *, sequence: bool = True,
) -> FrameTable:  # fmt: skip
    """One letter a frame: d(ay), n(ight), g(lare), (d)u(sk), '-' unknown; so is the route."""
    full = {'d': 'day', 'n': 'night', 'g': 'glare', 'u': 'dusk', '-': ''}
    state = [full[s] for s in states]
    count = len(states)
    return FrameTable(
        shard=np.array(shards or [0] * count), sequence=np.full(count, sequence),
        stamp=np.array([round(s * SECOND) for s in stamps], np.int64),
        labelled=np.zeros(count, np.int64), miou=np.full(count, np.nan),
        pixel_acc=np.full(count, np.nan), reliability=np.full(count, np.nan),
        readable=np.ones(count, np.bool_), masked=np.ones(count, np.bool_),
        source=np.array(['drive'] * count), state=np.array(state),
        route=np.array(['day' if s == 'day' else 'night' for s in state]),
        light=np.array([full[s] for s in lights]), ms={}, labels_sha256='',
    )  # fmt: skip


def test_switches_wrong_seconds_and_delays() -> None:
    #                  0 .. 9 s, a frame a second
    frames = table('dddddnnndd', 'dddnnnnddd', list(range(10)))
    found = routing(frames, ['drive'])
    assert found['switches'] == 2 and found['minutes'] == pytest.approx(10 / 60, abs=1e-3)
    assert found['switches_per_minute'] == pytest.approx(12)
    assert found['seconds_by_state'] == {'day': 7, 'night': 3}
    # day at 3 and 4 s by night, night at 7 s by day
    assert found['wrong_state_s'] == 3 and found['wrong_state_share'] == pytest.approx(0.3)
    assert [(c['from'], c['to'], c['delay_s']) for c in found['changes']] == [
        ('day', 'night', 2.0), ('night', 'day', 1.0),
    ]  # fmt: skip
    assert found['delay_s'] == {'p50': 1.5, 'max': 2.0, 'missed': 0}
    assert found['by_light'] == {'day': {'day': 5, 'night': 1}, 'night': {'day': 2, 'night': 2}}


def test_a_change_that_is_not_followed_is_missed_and_glare_is_right_at_night() -> None:
    found = routing(table('dddgg', 'dnddn', list(range(5))), ['drive'])
    assert [change['delay_s'] for change in found['changes']] == [None, 0.0, 0.0]
    assert found['delay_s']['missed'] == 1


def test_pauses_and_shards_hold_no_time_and_no_switch() -> None:
    frames = table('ddnn', '----', [0, 1, 50, 51], [0, 0, 1, 1])
    found = routing(frames, ['a', 'b'])
    assert found['switches'] == 0 and found['seconds_by_state'] == {'day': 2, 'night': 2}
    assert found['wrong_state_share'] is None and found['changes'] == []
    paused = routing(table('ddnn', '----', [0, 1, 50, 51]), ['a'])
    assert paused['seconds_by_state'] == {'day': 1, 'night': 2}


def test_pictures_by_themselves_have_a_share_but_no_seconds() -> None:
    found = routing(table('dn', 'nn', [0, 0], sequence=False), ['set'])
    assert found['wrong_state_share'] == 0.5 and found['wrong_state_s'] is None
    assert found['switches'] is None and found['switches_per_minute'] is None
    assert found['seconds_by_state'] == {} and found['seconds_by_route'] == {}


def test_a_frame_stands_for_the_time_up_to_the_next_one_unless_that_is_a_pause() -> None:
    stamps = [0, 1, 11, 21.5, 22, 5, 5, 7]
    frames = table('dddddnnn', '--------', stamps, [0] * 5 + [1] * 2 + [2])
    seconds = durations(frames)
    # ten seconds are none yet, and a drive's last frame stands for as long as its others
    assert seconds.tolist() == [1, 10, 0, 0.5, 1, 0, 0, 0]
    # one step back in time counts as none
    back = table('ddd', '---', [3, 2, 4])
    assert durations(back).tolist() == [0, 2, 2]


def test_times_are_rounded_to_milliseconds_and_shares_to_four_digits() -> None:
    found = routing(table('dnn', 'ndn', [0, 0.3703, 0.7406]), ['a'])
    assert (found['minutes'], found['switches_per_minute']) == (0.019, 54.01)
    assert found['seconds_by_state'] == {'day': 0.37, 'night': 0.741}
    assert (found['wrong_state_share'], found['wrong_state_s']) == (0.6667, 0.741)
    changes = table('dddnnnddd', 'ddnnnnndd', [0, 1, 2, 2.3703, 3, 4, 5, 5.371, 6])
    found = routing(changes, ['a'])
    assert [change['delay_s'] for change in found['changes']] == [0.37, 0.0]
    late = table('dddnnnnd', 'ddnnnddd', [0, 1, 2, 2.3703, 3, 4, 4.371, 4.742])
    found = routing(late, ['a'])
    assert [change['delay_s'] for change in found['changes']] == [0.37, 0.742]
    assert found['delay_s'] == {'p50': 0.556, 'max': 0.742, 'missed': 0}


def test_a_change_is_between_two_known_lights_of_one_drive() -> None:
    frames = table('nndduundd', 'nndu-nd--', list(range(9)))
    found = routing(frames, ['a'])
    assert [(c['from'], c['to']) for c in found['changes']] == [
        ('night', 'day'), ('day', 'dusk'), ('night', 'day'),
    ]  # fmt: skip
    assert [c['stamp'] for c in found['changes']] == [2 * SECOND, 3 * SECOND, 6 * SECOND]


def test_drives_are_told_apart_and_unreadable_frames_hold_nothing() -> None:
    #                                    a      b     c, whose third frame is unreadable
    frames = table('ddd' + 'nd' + 'dngn', 'ddd' + 'nd' + 'dnnn', [0, 1, 2, 0, 1, 0, 1, 2, 4],
                   [0, 0, 0, 1, 1, 2, 2, 2, 2])  # fmt: skip
    readable = np.ones(9, np.bool_)
    readable[7] = False
    frames = replace(frames, readable=readable)
    found = routing(frames, ['a', 'b', 'c'])
    assert found['switches'] == 2
    assert found['seconds_by_state'] == {'day': 3 + 1 + 1, 'night': 1 + 3 + 2}
    assert found['wrong_state_share'] == 0
    assert [(c['source'], c['stamp'] // SECOND) for c in found['changes']] == [('b', 1), ('c', 1)]


def test_light_from_a_word_and_from_a_file(tmp_path: Path) -> None:
    assert light_at(read_light('dusk', None), -5) == 'dusk'
    assert light_at(read_light('', None), 0) is None
    file = tmp_path / 'light.csv'
    file.write_text('stamp,state\n100,day\n300,night\n')
    light = read_light(str(file), None)
    assert [light_at(light, stamp) for stamp in (99, 100, 299, 300, 10**19)] == [
        None, 'day', 'day', 'night', 'night',
    ]  # fmt: skip
    file.write_text('100,day\n200,sunny\n')
    with pytest.raises(DataError, match=r'light\.csv.*(line 2|sunny)'):
        read_light(str(file), None)
    with pytest.raises(DataError, match="'dawn' tells no light"):
        read_light('dawn', None)


# -- frames that are shown -------------------------------------------------------------------


def test_kept_frames_hold_the_extremes_and_an_even_lattice() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(1000).tolist()
    others = rng.random(1000).tolist()
    choice = SampleChoice()
    most = 0
    for index, (value, other) in enumerate(zip(values, others)):
        choice.add(index, index, [value, other])
        most = max(most, len(choice.wanted))
    ranked = sorted(range(1000), key=values.__getitem__)
    gaps = sorted(range(1000), key=lambda i: -abs(values[i] - others[i]))
    assert {*ranked[:3], *ranked[-3:], *gaps[:2]} <= choice.wanted
    assert most <= 16 + 1 + 8
    candidates = [
        Candidate(shard=0, index=i, group=i, mious=(values[i], others[i]))
        for i in sorted(choice.wanted)
    ]
    chosen = select(candidates, float(np.median(values)))
    kinds: dict[str, list[int]] = {}
    for kind, item in chosen:
        kinds.setdefault(kind, []).append(item.index)
    assert kinds['best'] == ranked[:-4:-1] and kinds['worst'] == ranked[:3]
    assert all(abs(values[i] - np.median(values)) < 0.2 for i in kinds['median'])
    assert len({item.index for _, item in chosen}) == len(chosen)


def test_one_moment_of_a_drive_is_shown_once() -> None:
    choice = SampleChoice()
    for index in range(40):
        choice.add(index, index // 10, [index / 100])
    candidates = [
        Candidate(shard=0, index=i, group=i // 10, mious=(i / 100,)) for i in choice.wanted
    ]
    best = [item.index for kind, item in select(candidates, 0.2) if kind == 'best']
    assert best == [39, 29, 19]


def test_without_labels_the_frames_are_spread() -> None:
    choice = SampleChoice()
    for index in range(500):
        choice.add(index, index, [None])
    wanted = sorted(choice.wanted)
    assert 6 <= len(wanted) <= 17 and len(set(np.diff(wanted))) == 1
    chosen = select([Candidate(shard=0, index=i, group=i, mious=(None,)) for i in wanted], None)
    assert {kind for kind, _ in chosen} == {'spread'} and len(chosen) <= 6
