# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Fits a segmenter's ``TrustHead``: what good frames look like, what the signs of bad mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.graph import SegmentGraph
from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.runtime.trust import SIGNS, Observation, TrustHead
from nightseg_ros.taxonomy import UNLABELLED

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
#: Principal components of the pooled features.
COMPONENTS = 16
#: Least variance that float16 keeps well.
LEAST = 1e-3
#: Share of the good frames below which a distance says nothing.
START = 0.95
#: Weight that every sign has before a frame is seen, and how strongly: the faults that are fitted
#: on are not all that there are.
BELIEF, PULL = 0.1, 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the network made of one frame."""

    seen: Observation
    """Of one frame."""
    logits: npt.NDArray[np.float32]
    """Float32 [classes, h, w] at half the network's size, padding left out."""
    truth: Image | None
    """uint8 [h, w] at the same size."""

    @property
    def accuracy(self) -> float:
        """The share of right pixels among the labelled ones, NaN without any."""
        if self.truth is None:
            return float('nan')
        known = self.truth != UNLABELLED
        right = self.logits.argmax(0)[known] == self.truth[known]
        return float(right.mean()) if right.size else float('nan')


@torch.inference_mode()
def look(graph: SegmentGraph, image: Image, truth: Image | None, long_side: int) -> Look:
    """Show uint8 [H, W, 3] RGB to the graph; ``truth`` uint8 [H, W] ids."""
    size = fit(image.shape[0], image.shape[1], long_side)
    images = torch.from_numpy(HostPixels().shrink(image, 'rgb', size)[None])
    coarse, features = graph.look(images)
    logits = graph.enlarge(coarse)
    top = (logits * graph.cooling).softmax(1).amax(1).mean(dim=(1, 2))
    height, width = size.labels
    if truth is not None:
        small = cv2.resize(truth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        truth = np.asarray(small, np.uint8)
    return Look(
        seen=graph.observe(features, coarse, top),
        logits=logits[0, :, :height, :width].numpy(),
        truth=truth,
    )


def stack(seen: Sequence[Observation]) -> Observation:
    """Join the observations of several frames to one."""
    return Observation(
        confidence=torch.cat([one.confidence for one in seen]),
        pooled=torch.cat([one.pooled for one in seen]),
        rows=torch.cat([one.rows for one in seen]),
    )


def fit_trust(good: Observation, judged: Observation, accuracy: Floats) -> dict[str, torch.Tensor]:
    """
    Return the tensors of a ``TrustHead``.

    ``good`` are frames that a camera should give; the distances are to them. ``accuracy``, float64
    [N] from 0 to 1, is the share of right pixels of the frames ``judged``, good and bad ones.
    """
    tensors = _features(good.pooled)
    tensors['rows_mean'] = good.rows.mean(0)
    head = TrustHead({**tensors, **_nothing()})
    signs = head.signs(good).double()
    # doubt counts everywhere, around its mean
    start = torch.quantile(signs, START, dim=0)
    start[0] = signs[:, 0].mean()
    tensors |= {**_nothing(), 'start': start, 'scale': signs.std(0) + LEAST}
    head = TrustHead(tensors)
    weight, bias = fit_logistic(head.scaled(head.signs(judged)).double().numpy(), accuracy)
    return tensors | {'weight': torch.from_numpy(weight), 'bias': torch.tensor(bias)}


def fit_logistic(signs: Floats, share: Floats) -> tuple[Floats, float]:
    """
    Fit ``share`` ≈ σ(bias − signs · weight) with weights ≥ 0 by Newton's method.

    ``signs`` is [N, K]. More of a sign must never mean more trust: one whose weight would be
    negative, for want of frames that tell it, is left out.
    """
    used = np.ones(signs.shape[1], bool)
    while True:
        x = np.column_stack([-signs[:, used], np.ones(len(signs))])
        pull = np.r_[np.full(used.sum(), PULL), 0.0]
        beta = np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
            slope = x.T @ (share - p) - pull * (beta - BELIEF)
            curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(pull + 1e-9)
            step = np.linalg.solve(curve, slope)
            beta += step / max(1.0, float(np.abs(step).max()))
        if (beta[:-1] >= 0).all():
            weight = np.zeros(signs.shape[1])
            weight[used] = beta[:-1]
            return weight, float(beta[-1])
        worst = np.flatnonzero(used)[beta[:-1].argmin()]
        used[worst] = False


def _features(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return mean, scale and principal components of float [N, D]."""
    mean, scale = pooled.mean(0), pooled.std(0) + 1e-3
    z = ((pooled - mean) / scale).double()
    _, sizes, directions = torch.linalg.svd(z, full_matrices=False)
    # a few frames span few directions, and something has to lie beside them
    count = max(1, min(COMPONENTS, len(z) // 4))
    variances = (sizes[:count] ** 2 / (len(z) - 1)).clamp(min=LEAST)
    beside = (z**2).sum(1) - ((z @ directions[:count].T) ** 2).sum(1)
    return {
        'pooled_mean': mean, 'pooled_scale': scale, 'components': directions[:count],
        'variances': variances, 'residual': beside.mean().clamp(min=LEAST),
    }  # fmt: skip


def _nothing() -> dict[str, torch.Tensor]:
    """Return the logistic function's tensors before there are any."""
    zeros = torch.zeros(len(SIGNS))
    return {'start': zeros, 'scale': zeros + 1, 'weight': zeros, 'bias': zeros[0]}
