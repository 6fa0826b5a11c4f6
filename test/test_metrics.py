# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Scores, intervals, calibration, flicker and routing against what is known of made-up frames."""

from typing import Any

import cv2
from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation import metrics
from nightseg_ros.evaluation.inference import Candidate, Samples, select
from nightseg_ros.evaluation.metrics import BootstrapConfig, confusion, Flicker, flicker, resampled
from nightseg_ros.evaluation.sources import light_at, read_light
from nightseg_ros.evaluation.summary import durations, FrameTable, routing
from nightseg_ros.perception.frame import Frame
from nightseg_ros.taxonomy import CAMVID11, Taxonomy, UNLABELLED
import numpy as np
import pytest

SECOND = 1_000_000_000
THREE = Taxonomy(name='three', classes=('a', 'b', 'c'), colors=((1, 0, 0), (0, 1, 0), (0, 0, 1)))

# -- confusion -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('truth', 'labels', 'word'),
    [([[0, 1]], [[0]], 'sizes'), ([[3]], [[0]], 'truth holds id 3'), ([[0]], [[9]], 'mask holds')],
)
def test_what_cannot_be_counted_is_refused(truth, labels, word):
    with pytest.raises(ValueError, match=word):
        confusion(np.array(truth, np.uint8), np.array(labels, np.uint8), THREE)


@pytest.mark.parametrize('seed', range(3))
def test_scores_are_those_of_torchmetrics(seed):
    import torch
    from torchmetrics import classification as torchmetrics

    rng = np.random.default_rng(seed)
    classes = len(CAMVID11)
    # seed 0 lacks classes in the truth, seed 1 in both
    truth = rng.integers(0, classes - (seed < 2) * 3, (3, 40, 50)).astype(np.uint8)
    labels = rng.integers(0, classes - (seed == 1) * 3, truth.shape).astype(np.uint8)
    labels[rng.random(truth.shape) < 0.5] = 0
    agree = rng.random(truth.shape) < 0.6
    labels[agree] = truth[agree]
    truth[rng.random(truth.shape) < 0.2] = UNLABELLED
    rows = sum(confusion(one, other, CAMVID11) for one, other in zip(truth, labels))

    def theirs(metric: str, **settings: Any) -> np.ndarray:
        made = getattr(torchmetrics, metric)(classes, ignore_index=UNLABELLED, **settings)
        return made(*(torch.from_numpy(a.astype(np.int64)) for a in (labels, truth))).numpy()

    np.testing.assert_array_equal(rows[:, :-1], theirs('MulticlassConfusionMatrix'))
    assert metrics.mean_accuracy(rows) == pytest.approx(np.nanmean(metrics.accuracy(rows)))
    for values, metric, average in (
        (metrics.iou(rows), 'MulticlassJaccardIndex', None),
        (metrics.accuracy(rows), 'MulticlassAccuracy', None),
        (metrics.miou_all(rows), 'MulticlassJaccardIndex', 'macro'),
        (metrics.frequency_weighted_iou(rows), 'MulticlassJaccardIndex', 'weighted'),
        (metrics.pixel_accuracy(rows), 'MulticlassAccuracy', 'micro'),
        (metrics.pixel_accuracy(rows), 'MulticlassAccuracy', 'weighted'),
    ):
        np.testing.assert_allclose(np.nan_to_num(values), theirs(metric, average=average), 1e-5)


def test_a_withheld_mask_misses_every_labelled_pixel_and_no_label_gives_no_score():
    truth = np.array([[0, 1, UNLABELLED]], np.uint8)
    rows = confusion(truth[:, 2:], truth[:, :1], THREE)
    assert np.isnan(metrics.miou(rows)) and np.isnan(metrics.pixel_accuracy(rows))
    rows = confusion(truth, np.full_like(truth, UNLABELLED), THREE)
    assert metrics.pixel_accuracy(rows) == 0 and metrics.miou(rows) == 0
    assert rows[:, -1].tolist() == [1, 1, 0]


def test_every_pixel_of_a_huge_picture_counts():
    """A float32 counts no further than 2^24; beyond, it knows no odd numbers."""
    truth = np.zeros((5000, 3400), np.uint8)
    truth[-1, -1] = 1
    rows = confusion(truth, np.zeros_like(truth), CAMVID11)
    assert rows[:2, 0].tolist() == [5000 * 3400 - 1, 1]


def test_miou_over_present_over_all_and_over_a_subset_differ():
    """Truth: sky and road; masks: sky, road and a car that is not there."""
    rows = np.zeros((11, 12), np.int64)
    rows[0, 0], rows[0, 8], rows[3, 3] = 6, 2, 8
    assert metrics.miou(rows) == pytest.approx((6 / 8 + 1) / 2)
    assert metrics.miou(rows, np.arange(11) == 3) == 1
    assert metrics.miou_all(rows) == pytest.approx((6 / 8 + 1 + 0) / 3)


# -- bootstrap and entries -------------------------------------------------------------------


def test_an_interval_is_as_wide_as_theory_says():
    config = BootstrapConfig(resamples=4000)
    right = np.random.default_rng(1).binomial(100, 0.7, 400)
    sums = resampled(np.stack([right, np.full(400, 100)], axis=1), config)
    low, high = metrics.interval(sums[:, 0] / sums[:, 1], 400, config)
    error = right.std() / 100 / np.sqrt(400)
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert low < right.mean() / 100 < high
    for values, units in ((np.ones(10), 1), (np.full(10, np.nan), 5)):
        assert metrics.interval(values, units, config) is None


def test_a_seed_gives_the_same_draws_and_another_one_others():
    units = np.arange(20).reshape(10, 2)
    one = resampled(units, BootstrapConfig(resamples=60))
    np.testing.assert_array_equal(one, resampled(units, BootstrapConfig(resamples=60)))
    assert (one != resampled(units, BootstrapConfig(resamples=60, seed=1))).any()
    assert (one != resampled(units, BootstrapConfig(resamples=60), stratum=1)).any()
    # every draw has as many units as there are
    np.testing.assert_array_equal(resampled(np.ones((7, 1)), BootstrapConfig())[:, 0], 7)


def test_the_mean_of_sources_weighs_them_equally():
    """A source of 30 frames that scores 1 and one of 2 frames that scores 1/3."""
    good, bad = np.zeros((30, 11, 12), np.int64), np.zeros((2, 11, 12), np.int64)
    good[:, 0, 0] = 10
    bad[:, 3, 3], bad[:, 3, 0], bad[:, 0, 0] = 5, 5, 2
    scores = metrics.SegmentationScores(CAMVID11, BootstrapConfig(resamples=50))
    mean, values, units = scores.mean_of_sources([good, bad], 'frames')
    expected = (1 + (5 / 10 + 2 / 7) / 2) / 2
    assert mean == pytest.approx(expected) and units == 30
    np.testing.assert_allclose(values, expected)
    mean, values, units = scores.mean_of_sources([good, bad], 'sources')
    assert mean == pytest.approx(expected) and units == 2
    assert set(np.round(values, 6)) == {1.0, round(expected, 6), round(2 * expected - 1, 6)}
    mean, values, units = scores.mean_of_sources([np.zeros((3, 11, 12), np.int64)], 'frames')
    assert np.isnan(mean) and np.isnan(values).all() and units == 0


def test_an_entry_tells_absent_classes_and_what_masks_abstained_from():
    units = np.zeros((6, 11, 12), np.int64)
    units[:, :3, :3] = np.random.default_rng(0).integers(1, 50, (6, 3, 3))
    units[:, 3, 11], units[:, 3, 10] = 7, 2
    scores = metrics.SegmentationScores(CAMVID11, BootstrapConfig(resamples=50), ('sky', 'car'))
    entry, values = scores.entry(units)
    assert entry['iou']['car'] is None and entry['iou_ci']['car'] is None
    assert entry['miou_subset'] == entry['iou']['sky']
    for name in ('miou', 'pixel_acc'):
        low, high = entry[f'{name}_ci']
        assert 0 < low < entry[name] < high < 1
    assert entry['confusion'] == units.sum(0)[:, :-1].tolist()
    assert values['miou'].shape == (50,)
    assert entry['support'] == dict(zip(CAMVID11.classes, units.sum((0, 2)).tolist()))
    assert entry['abstained'] == dict.fromkeys(CAMVID11.classes, 0) | {'road': 42}
    with pytest.raises(ConfigError, match="'camvid11' has no class 'unicorn'; it has sky"):
        metrics.SegmentationScores(CAMVID11, BootstrapConfig(), ('sky', 'unicorn'))


# -- calibration -----------------------------------------------------------------------------


def test_each_of_fifteen_bins_begins_at_its_own_confidence():
    """255 levels in 15 bins of 17: the first of a bin is in it, the one below is not."""
    sky = np.zeros((1, 2), np.uint8)
    for index in range(15):
        confidence = np.array([[17 * index, 17 * index + 16]], np.uint8)
        counts = metrics.reliability(sky, sky, confidence)
        assert counts[:, 0].tolist() == [2 * (place == index) for place in range(15)]


def test_calibration_by_hand():
    """The last two pixels have no truth, or no label."""
    confidence = np.array([[51, 51, 52, 204, 9, 9]], np.uint8)
    labels = np.array([[1, 2, 3, 4, 0, UNLABELLED]], np.uint8)
    truth = np.array([[1, 0, 0, 4, UNLABELLED, 3]], np.uint8)
    found = metrics.calibration(metrics.reliability(truth, labels, confidence))
    low, high = (51 + 51 + 52) / 255, 204 / 255
    assert found['pixels'] == 4 and found['accuracy'] == 0.5
    assert found['confidence'] == round((low + high) / 4, 4)
    assert found['ece'] == round((abs(1 - low) + abs(1 - high)) / 4, 4)
    bins = found['bins']
    edges = [round(i / 15, 4) for i in range(16)]
    assert [(one['low'], one['high']) for one in bins] == list(zip(edges, edges[1:]))
    assert list(bins[3].values())[2:] == [3, 0.2013, 0.3333]
    assert list(bins[12].values())[2:] == [1, 0.8, 1.0]
    assert list(bins[0].values())[2:] == [0, None, None]
    assert metrics.calibration(np.zeros((metrics.BINS, 3), np.int64)) is None


# -- flicker ---------------------------------------------------------------------------------

STILL = np.zeros((90, 180), np.uint8)
STRIPES = np.repeat(np.arange(18, dtype=np.uint8) % 3, 10)[None].repeat(90, 0)


def textured(shift: int = 0, stamp_ns: int = 0, shape: tuple[int, int] = (90, 180)) -> Frame:
    noise = np.random.default_rng(0).integers(0, 256, (90, 180), np.uint8)
    gray = cv2.normalize(cv2.GaussianBlur(noise, (9, 9), 2), None, 0, 255, cv2.NORM_MINMAX)
    image = np.asarray(cv2.merge([np.roll(gray, shift, 1)] * 3), np.uint8)
    return Frame(image=image[: shape[0], : shape[1]], stamp_ns=stamp_ns)


def test_a_mask_flickers_where_it_does_not_move_with_the_picture():
    half = STILL.copy()
    half[:45] = 1
    measure = Flicker()
    assert flicker(measure.add(textured(), [STRIPES, STILL, STILL])[0]) is None
    moving, steady, changed = map(
        flicker, measure.add(textured(4, 1), [np.roll(STRIPES, 4, 1), STILL, half])
    )
    assert moving['plain'] == pytest.approx(0.4, abs=0.01)
    assert moving['warped'] == pytest.approx(0, abs=0.05)
    assert steady == {'pairs': 1, 'plain': 0, 'warped': 0}
    assert changed['plain'] == 0.5 and changed['warped'] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ('later', 'shape', 'pairs'),
    [
        (0, (90, 180), 0), (-SECOND, (90, 180), 0), (1, (90, 180), 1),
        (SECOND // 2, (90, 180), 1), (SECOND // 2 + 1, (90, 180), 0), (1, (90, 90), 0),
        (1, (45, 180), 0),
    ],
)  # fmt: skip
def test_only_the_next_frame_of_one_size_within_half_a_second_is_a_neighbour(later, shape, pairs):
    epoch = 1_700_000_000 * SECOND
    measure = Flicker()
    measure.add(textured(stamp_ns=epoch), [STILL])
    frame = textured(stamp_ns=epoch + later, shape=shape)
    counts = measure.add(frame, [STILL[: shape[0], : shape[1]]])
    # under a still picture every pixel has an origin
    assert counts[0].tolist() == [pairs, pairs * STILL.size, 0, pairs * STILL.size, 0]


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_flow_follows_what_is_bright_to_the_eye(order):
    """Red moves, blue stands still; the eye, and gray, take red for nearly three times blue."""
    red = textured().image[:, :, 0]
    blue = np.ascontiguousarray(red[::-1])
    measure = Flicker()
    for shift in (0, 4):
        planes = [np.roll(red, shift, 1), np.full_like(red, 128), blue]
        image = np.asarray(cv2.merge(planes if order == 'rgb' else planes[::-1]), np.uint8)
        frame = Frame(image=image, order=order, stamp_ns=shift)
        counts = measure.add(frame, [np.roll(STRIPES, shift, 1)])
    found = flicker(counts[0])
    assert found is not None and found['warped'] is not None and found['warped'] < 0.1


@pytest.mark.parametrize(
    ('height', 'width', 'compared'), [(270, 480, 240 * 135), (60, 80, 60 * 80), (1, 480, 0)]
)
def test_masks_are_compared_at_a_width_of_240_at_most(height, width, compared):
    measure = Flicker()
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for stamp in (0, 1):
        counts = measure.add(Frame(image=image, stamp_ns=stamp), [image[:, :, 0]])
    assert counts[0][1] == compared


def test_what_leaves_the_picture_is_not_compared():
    compared = []
    for shift in (0, 4, 12):
        measure = Flicker()
        measure.add(textured(), [STILL])
        compared.append(int(measure.add(textured(shift, 1), [STILL])[0][3]))
    assert compared[0] == 180 * 90
    assert compared[1] < (180 - 2) * 90 and compared[2] < (180 - 6) * 90
    # shares are rounded and may be unknown
    assert flicker(np.array([1, 3, 1, 7, 1])) == {'pairs': 1, 'plain': 0.33333, 'warped': 0.14286}
    assert flicker(np.array([2, 8, 4, 0, 0])) == {'pairs': 2, 'plain': 0.5, 'warped': None}


# -- routing ---------------------------------------------------------------------------------


def table(
    states: str, lights: str, stamps: list[float] | None = None, shards: list[int] | None = None,
    *, sequence: bool = True, unreadable: int = -1,
) -> FrameTable:  # fmt: skip
    """One letter a frame: d(ay), n(ight), g(lare), (d)u(sk), '-' unknown; so is the route."""
    full = {'d': 'day', 'n': 'night', 'g': 'glare', 'u': 'dusk', '-': ''}
    count = len(states)
    lines = [
        {
            'state': full[state], 'route': 'day' if state == 'd' else 'night',
            'light': full[light], 'source': 'drive', 'stamp': round(stamp * SECOND),
            'labelled': 0, 'pixel_acc': None, 'reliability': None, 'labels_sha256': '00',
            'size': None if index == unreadable else [1, 1],
        }
        for index, (state, light, stamp) in enumerate(zip(states, lights, stamps or range(count)))
    ]  # fmt: skip
    return FrameTable(lines, np.array(shards or [0] * count), np.full(count, sequence))


def test_switches_wrong_seconds_and_delays():
    #                         0 .. 9 s, a frame a second
    found = routing(table('dddddnnndd', 'dddnnnnddd'), ['drive'])
    assert found['switches'] == 2 and found['minutes'] == pytest.approx(10 / 60, abs=1e-3)
    assert found['switches_per_minute'] == pytest.approx(12)
    assert found['seconds_by_state'] == {'day': 7, 'night': 3}
    # day at 3 and 4 s by night, night at 7 s by day
    assert found['wrong_state_s'] == 3 and found['wrong_state_share'] == pytest.approx(0.3)
    assert [(c['from'], c['to'], c['delay_s']) for c in found['changes']] == [
        ('day', 'night', 2.0), ('night', 'day', 1.0),
    ]  # fmt: skip
    assert found['delay_s'] == {'p50': 1.5, 'max': 2.0, 'missed': 0}
    # milliseconds, and shares of four digits
    short = routing(table('dnn', 'ndn', [0, 0.3703, 0.7406]), ['a'])
    assert short['seconds_by_state'] == {'day': 0.37, 'night': 0.741}
    assert (short['minutes'], short['wrong_state_share']) == (0.019, 0.6667)
    assert found['by_light'] == {'day': {'day': 5, 'night': 1}, 'night': {'day': 2, 'night': 2}}


def test_a_change_that_is_not_followed_is_missed_and_glare_is_right_at_night():
    found = routing(table('dddgg', 'dnddn'), ['drive'])
    assert [change['delay_s'] for change in found['changes']] == [None, 0.0, 0.0]
    assert found['delay_s']['missed'] == 1


def test_pauses_and_shards_hold_no_time_and_no_switch():
    found = routing(table('ddnn', '----', [0, 1, 50, 51], [0, 0, 1, 1]), ['a', 'b'])
    assert found['switches'] == 0 and found['seconds_by_state'] == {'day': 2, 'night': 2}
    assert found['wrong_state_share'] is None and found['changes'] == []
    paused = routing(table('ddnn', '----', [0, 1, 50, 51]), ['a'])
    assert paused['seconds_by_state'] == {'day': 1, 'night': 2}
    stamps = [0, 1, 11, 21.5, 22, 5, 5, 7]
    seconds = durations(table('dddddnnn', '--------', stamps, [0] * 5 + [1] * 2 + [2]))
    # ten seconds are none yet, and a drive's last frame stands for as long as its others
    assert seconds.tolist() == [1, 10, 0, 0.5, 1, 0, 0, 0]
    # one step back in time counts as none
    assert durations(table('ddd', '---', [3, 2, 4])).tolist() == [0, 2, 2]


def test_pictures_by_themselves_have_a_share_but_no_seconds():
    found = routing(table('dn', 'nn', [0, 0], sequence=False), ['set'])
    assert found['wrong_state_share'] == 0.5 and found['wrong_state_s'] is None
    assert found['switches'] is None and found['switches_per_minute'] is None
    assert found['seconds_by_state'] == {} and found['seconds_by_route'] == {}


def test_a_change_is_between_two_known_lights_of_one_drive():
    found = routing(table('nndduundd', 'nndu-nd--'), ['a'])
    assert [(c['from'], c['to'], c['stamp'] // SECOND) for c in found['changes']] == [
        ('night', 'day', 2), ('day', 'dusk', 3), ('night', 'day', 6),
    ]  # fmt: skip
    #                a       b      c, whose third frame is unreadable
    drives = table('ddd' + 'nd' + 'dngn', 'ddd' + 'nd' + 'dnnn', [0, 1, 2, 0, 1, 0, 1, 2, 4],
                   [0, 0, 0, 1, 1, 2, 2, 2, 2], unreadable=7)  # fmt: skip
    found = routing(drives, ['a', 'b', 'c'])
    assert found['switches'] == 2 and found['wrong_state_share'] == 0
    assert found['seconds_by_state'] == {'day': 3 + 1 + 1, 'night': 1 + 3 + 2}
    assert [(c['source'], c['stamp'] // SECOND) for c in found['changes']] == [('b', 1), ('c', 1)]


@pytest.mark.parametrize(
    'content',
    [
        b'stamp,state\n100,day\n300,night\n',
        b'\xef\xbb\xbf100,day\r\n"300","night"\r\n',
        'stamp,state\r\n100,day\r\n300,night'.encode('utf-16'),
        b'stamp;state\r\n100;day\r\n300;night\r\n',
    ],
    ids=['plain', 'byte order mark', 'UTF-16', 'semicolons'],
)
def test_light_from_a_word_and_from_a_file(tmp_path, content):
    assert light_at(read_light('dusk', None), -5) == 'dusk'
    assert light_at(read_light('', None), 0) is None
    file = tmp_path / 'light.csv'
    file.write_bytes(content)
    light = read_light(str(file), None)
    assert [light_at(light, stamp) for stamp in (99, 100, 299, 300, 10**19)] == [
        None, 'day', 'day', 'night', 'night',
    ]  # fmt: skip
    wrong = {'100,day\n200,sunny\n': 'sunny', '100,day\nx,day\n': 'line 2', '0.5,day\n': 'line 1'}
    for content, words in wrong.items():
        file.write_text(content)
        with pytest.raises(DataError, match=rf'light\.csv.*{words}'):
            read_light(str(file), None)
    with pytest.raises(DataError, match="'dawn' tells no light"):
        read_light('dawn', None)


# -- frames that are shown -------------------------------------------------------------------


def offered(frames: list[Candidate]) -> tuple[list[Candidate], int]:
    """Return the frames that are kept of those that passed, and how many were kept at most."""
    samples, most = Samples(), 0
    for frame in frames:
        samples.add(frame, dict)
        most = max(most, len(samples.wanted))
    return [frame for frame in frames if frame in samples.wanted], most


def test_kept_frames_hold_the_extremes_and_an_even_lattice():
    values, others = np.random.default_rng(0).random((2, 1000)).tolist()
    every = [
        Candidate(number=i, group=i, mious=pair) for i, pair in enumerate(zip(values, others))
    ]
    kept, most = offered(every)
    assert most <= 16 + 1 + 8
    ranked = sorted(range(1000), key=values.__getitem__)
    gaps = sorted(range(1000), key=lambda i: -abs(values[i] - others[i]))
    kinds: dict[str, list[int]] = {}
    for kind, item in select(kept, float(np.median(values))):
        kinds.setdefault(kind, []).append(item.number)
    assert kinds['best'] == ranked[:-4:-1] and kinds['worst'] == ranked[:3]
    assert all(abs(values[i] - np.median(values)) < 0.2 for i in kinds['median'])
    assert len({*gaps[:2]} & {frame.number for frame in kept}) == len(kinds['different']) == 2
    shown = [index for some in kinds.values() for index in some]
    assert len(set(shown)) == len(shown)


def test_one_moment_of_a_drive_is_shown_once():
    kept, _ = offered([Candidate(number=i, group=i // 10, mious=(i / 100,)) for i in range(40)])
    assert [i.number for kind, i in select(kept, 0.2) if kind == 'best'] == [39, 29, 19]


def test_without_labels_the_frames_are_spread():
    kept, most = offered([Candidate(number=i, group=i, mious=()) for i in range(500)])
    assert 6 <= len(kept) <= most <= 17
    assert len(set(np.diff([frame.number for frame in kept]))) == 1
    chosen = select(kept, None)
    assert {kind for kind, _ in chosen} == {'spread'} and len(chosen) <= 6
