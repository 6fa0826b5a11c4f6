# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix against a count pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightseg_ros.evaluation.confusion import ConfusionMatrix
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

THREE = Taxonomy(name='three', classes=('a', 'b', 'c'), colors=((1, 0, 0), (0, 1, 0), (0, 0, 1)))
ids = st.sampled_from([0, 1, 2, UNLABELLED])
masks = st.lists(st.tuples(ids, ids), min_size=1, max_size=60)


@given(masks)
def test_scores_follow_the_definitions(pairs: list) -> None:
    truth, labels = (np.array(side, np.uint8)[None] for side in zip(*pairs))
    matrix = ConfusionMatrix(THREE)
    matrix.add(truth, labels)
    known = [(t, p) for t, p in pairs if t != UNLABELLED]
    ious = []
    for index in range(3):
        both = sum(t == index and p == index for t, p in known)
        either = sum(t == index or p == index for t, p in known)
        if either:
            assert matrix.iou()[index] == pytest.approx(both / either)
        else:
            assert np.isnan(matrix.iou()[index])
        if any(t == index for t, _ in known):
            ious.append(both / either)
    if known:
        assert matrix.pixel_accuracy() == pytest.approx(np.mean([t == p for t, p in known]))
        assert matrix.miou() == pytest.approx(np.mean(ious))
    else:
        assert np.isnan(matrix.miou()) and np.isnan(matrix.pixel_accuracy())


@given(masks, masks)
def test_merging_is_counting_together(first: list, second: list) -> None:
    whole = ConfusionMatrix(THREE)
    parts = []
    for pairs in (first, second):
        truth, labels = (np.array(side, np.uint8)[None] for side in zip(*pairs))
        part = ConfusionMatrix(THREE)
        part.add(truth, labels)
        whole.add(truth, labels)
        parts.append(part)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].counts, whole.counts)
    np.testing.assert_array_equal(parts[0].abstained, whole.abstained)


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
