# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix against a count pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightseg_ros.evaluation import metrics as confusion
from nightseg_ros.evaluation.metrics import ConfusionMatrix
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED, Taxonomy

THREE = Taxonomy(name='three', classes=('a', 'b', 'c'), colors=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
ids = st.sampled_from([0, 1, 2, UNLABELLED])
masks = st.lists(st.tuples(ids, ids), min_size=1, max_size=60)


@settings(deadline=None)  # a busy machine is no failure
@given(masks)
def test_scores_follow_the_definitions(pairs: list) -> None:
    truth, labels = (np.array(side, np.uint8)[None] for side in zip(*pairs))
    matrix = ConfusionMatrix(THREE)
    matrix.add(truth, labels)
    known = [(t, p) for t, p in pairs if t != UNLABELLED]
    ious, recalls = [], []
    for index in range(3):
        both = sum(t == index and p == index for t, p in known)
        either = sum(t == index or p == index for t, p in known)
        if either:
            assert matrix.iou()[index] == pytest.approx(both / either)
        else:
            assert np.isnan(matrix.iou()[index])
        if any(t == index for t, _ in known):
            ious.append(both / either)
            recalls.append(both / sum(t == index for t, _ in known))
    if known:
        assert confusion.mean_accuracy(matrix.rows) == pytest.approx(np.mean(recalls))
        assert matrix.pixel_accuracy() == pytest.approx(np.mean([t == p for t, p in known]))
        assert matrix.miou() == pytest.approx(np.mean(ious))
    else:
        assert np.isnan(matrix.miou()) and np.isnan(matrix.pixel_accuracy())


def test_miou_leaves_out_absent_and_named_classes() -> None:
    matrix = ConfusionMatrix(THREE)
    matrix.add(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 2, 1, 1]], np.uint8))
    assert matrix.miou() == pytest.approx((0.5 + 1) / 2)
    assert matrix.miou(without=['a']) == 1


@pytest.mark.parametrize(
    ('truth', 'labels', 'word'),
    [([[0, 1]], [[0]], 'sizes'), ([[3]], [[0]], 'truth holds id 3'), ([[0]], [[9]], 'mask holds')],
)
def test_what_cannot_be_counted_is_refused(truth: list, labels: list, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ConfusionMatrix(THREE).add(np.array(truth, np.uint8), np.array(labels, np.uint8))


@pytest.mark.parametrize('seed', range(4))
def test_scores_are_those_of_torchmetrics(seed: int) -> None:
    torch = pytest.importorskip('torch')
    reason = 'torchmetrics is not installed (requirements/test.txt)'
    torchmetrics = pytest.importorskip('torchmetrics.classification', reason=reason)
    rng = np.random.default_rng(seed)
    classes = len(CAMVID11)
    # seed 0 lacks classes in the truth, seed 1 in both
    truth = rng.integers(0, classes - (seed < 2) * 3, (3, 40, 50)).astype(np.uint8)
    labels = rng.integers(0, classes - (seed == 1) * 3, truth.shape).astype(np.uint8)
    labels[rng.random(truth.shape) < 0.5] = 0
    agree = rng.random(truth.shape) < 0.6
    labels[agree] = truth[agree]
    truth[rng.random(truth.shape) < 0.2] = UNLABELLED
    matrix = ConfusionMatrix(CAMVID11)
    for one, other in zip(truth, labels):
        matrix.add(one, other)

    def theirs(metric: str, average: str | None) -> np.ndarray:
        made = getattr(torchmetrics, metric)(classes, average=average, ignore_index=UNLABELLED)
        return made(*(torch.from_numpy(a.astype(np.int64)) for a in (labels, truth))).numpy()

    either = matrix.support + matrix.counts.sum(0) > 0
    iou = np.nan_to_num(matrix.iou())
    np.testing.assert_allclose(iou[either], theirs('MulticlassJaccardIndex', None)[either], 1e-5)
    recall = np.nan_to_num(matrix.accuracy())
    np.testing.assert_allclose(recall, theirs('MulticlassAccuracy', None), 1e-5)
    for value, metric, average in (
        (confusion.miou_all(matrix.rows), 'MulticlassJaccardIndex', 'macro'),
        (confusion.frequency_weighted_iou(matrix.rows), 'MulticlassJaccardIndex', 'weighted'),
        (confusion.pixel_accuracy(matrix.rows), 'MulticlassAccuracy', 'micro'),
        (confusion.pixel_accuracy(matrix.rows), 'MulticlassAccuracy', 'weighted'),
    ):
        assert value == pytest.approx(float(theirs(metric, average)), abs=1e-5), (metric, average)
    counts = torchmetrics.MulticlassConfusionMatrix(classes, ignore_index=UNLABELLED)(
        *(torch.from_numpy(a.astype(np.int64)) for a in (labels, truth))
    )
    np.testing.assert_array_equal(matrix.counts, counts.numpy())


def test_matrices_are_scored_many_at_a_time() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 50, (2, 5, 3, 4))
    for score in (
        confusion.iou, confusion.accuracy, confusion.miou, confusion.miou_all,
        confusion.frequency_weighted_iou, confusion.pixel_accuracy, confusion.mean_accuracy,
    ):  # fmt: skip
        each = [[score(matrix) for matrix in row] for row in rows]
        np.testing.assert_allclose(score(rows), each)


def test_a_withheld_mask_misses_every_labelled_pixel() -> None:
    matrix = ConfusionMatrix(THREE)
    truth = np.array([[0, 1, UNLABELLED]], np.uint8)
    matrix.add(truth, np.full_like(truth, UNLABELLED))
    assert matrix.pixel_accuracy() == 0 and matrix.miou() == 0
    assert matrix.abstained.tolist() == [1, 1, 0]


def test_every_pixel_of_a_huge_picture_counts() -> None:
    """A float32 counts no further than 2^24; beyond, it knows no odd numbers."""
    truth = np.zeros((5000, 3400), np.uint8)
    truth[-1, -1] = 1
    matrix = ConfusionMatrix(CAMVID11)
    matrix.add(truth, np.zeros_like(truth))
    assert matrix.counts[:2, 0].tolist() == [5000 * 3400 - 1, 1]


def test_pairs_of_values_are_counted_where_the_mask_allows() -> None:
    rng = np.random.default_rng(0)
    first, second, mask = (rng.integers(0, 256, (30, 40), np.uint8) for _ in range(3))
    mask[mask < 128] = 0
    halves = confusion.joint_histogram(first, second, (2, 256), mask)
    for half, row in enumerate(halves):
        chosen = (mask > 0) & (first // 128 == half)
        np.testing.assert_array_equal(row, np.bincount(second[chosen], minlength=256))


def test_miou_over_present_over_all_and_over_a_subset_differ() -> None:
    """Truth: sky and road; masks: sky, road and a car that is not there."""
    rows = np.zeros((11, 12), np.int64)
    rows[0, 0], rows[0, 8], rows[3, 3] = 6, 2, 8
    assert float(confusion.miou(rows)) == pytest.approx((6 / 8 + 1) / 2)
    assert float(confusion.miou_all(rows)) == pytest.approx((6 / 8 + 1 + 0) / 3)
    keep = np.arange(11) == 3
    assert float(confusion.miou(rows, keep)) == 1
    assert float(confusion.mean_accuracy(rows)) == pytest.approx((6 / 8 + 1) / 2)
    assert float(confusion.frequency_weighted_iou(rows)) == pytest.approx((6 / 8 * 8 + 8) / 16)
