# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Labels for unlabelled frames: what a trained segmenter is surest of, class by class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nightseg_ros.config import to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import SCENE, Sample, read_image, read_labels, write_labels
from nightseg_ros.files import replace_file
from nightseg_ros.networks import build_from
from nightseg_ros.outputs import check_output
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy
from nightseg_ros.training import require_range
from nightseg_ros.training.crops import labelled
from nightseg_ros.weights import Weights, WeightsError, load_weights

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
#: Heights of the row prior; a frame's rows are stretched over them.
ROWS = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelConfig:
    """Settings of ``nightseg train pseudo_labels``."""

    data: tuple[str, ...]
    """Unlabelled data sets, ADAPTER:ROOT[:SPLIT]."""
    teacher: str
    """Weights of the segmenter that labels them."""
    out: str
    """Folder to write: one PNG of ids a frame, those of unsure pixels in scene/, manifest.json."""
    prior: tuple[str, ...] = ()
    """Labelled data sets that tell in which rows a class stands; none leaves the prior out."""
    prior_weight: float = 0.5
    """Exponent of the prior; 0 ignores it, 1 trusts it like the network."""
    scales: tuple[float, ...] = (0.75, 1.0, 1.5)
    """Sizes, each also mirrored, over which the teacher's probabilities are averaged."""
    keep: float = 0.5
    """Share of each class's pixels that keep their label, the surest first."""
    least: float = 0.5
    """Probability below which no pixel keeps its label."""
    without: tuple[str, ...] = ()
    """Classes that keep no pixel, where the teacher is known to see them in the wrong places."""

    def __post_init__(self) -> None:
        """Refuse shares outside 0 to 1 and missing scales."""
        require_range(self, 0, 1, 'keep', 'least', 'prior_weight')
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"'scales' must be positive factors, got {self.scales}")


def write_pseudo_labels(config: PseudoLabelConfig, log: Callable[[str], None] = print) -> Path:
    """
    Label every frame and return the folder; ``paired:IMAGES:OUT`` is then a data set.

    Thresholds are per class over the whole data set (class-balanced, Zou et al. 2018), so that a
    frequent class does not push a rare one out. The folder ``scene`` in it keeps the best guess
    for every pixel: nothing trains on it, but a synthetic night needs to know where the sky is.
    """
    weights = load_weights(config.teacher)
    if weights.metadata.taxonomy is None:
        raise WeightsError(f"'{config.teacher}' is no segmenter and cannot label frames")
    taxonomy = Taxonomy.from_dict(weights.metadata.taxonomy)
    samples = [sample for spec in config.data for sample in open_dataset(spec)]
    prior = row_prior([s for spec in config.prior for s in open_dataset(spec, taxonomy)], taxonomy)
    teacher = Teacher(weights, config, prior)
    out = Path(config.out)
    check_output(
        out, 'pseudo-labels', lambda path: (path / SCENE).is_dir(),
        inputs={sample.image.parent for sample in samples},
    )  # fmt: skip
    (out / SCENE).mkdir(parents=True, exist_ok=True)

    labels: list[Bytes] = []
    sure: list[Bytes] = []
    for number, sample in enumerate(samples, start=1):
        best, probability = teacher(read_image(sample.image))
        labels.append(best)
        sure.append(np.round(probability * 255).astype(np.uint8))
        if number % 20 == 0 or number == len(samples):
            log(f'labelled {number}/{len(samples)}')
    limits = _limits(labels, sure, len(taxonomy), config)
    limits[[taxonomy.id_of(name) for name in config.without]] = 256
    for sample, best, certain in zip(samples, labels, sure):
        kept = np.where(certain >= limits[best], best, UNLABELLED).astype(np.uint8)
        write_labels(out / SCENE / f'{sample.image.stem}.png', best)
        write_labels(out / f'{sample.image.stem}.png', kept)
    settings = to_mapping(config)
    for path in ('out', 'data', 'prior', 'teacher'):
        del settings[path]
    thresholds = zip(taxonomy.classes, limits.tolist())
    manifest = {
        'teacher': weights.sha256,
        'config': settings,
        'thresholds': {name: round(limit / 255, 3) for name, limit in thresholds},
        'frames': len(samples),
    }
    replace_file(out / 'manifest.json', (json.dumps(manifest, indent=2) + '\n').encode())
    return out


class Teacher:
    """A segmenter whose probabilities are averaged over sizes and mirror images."""

    def __init__(self, weights: Weights, config: PseudoLabelConfig, prior: Floats | None) -> None:
        """Build the network; ``prior`` is float32 [ROWS, classes] or None."""
        self._network = build_from(weights)
        self._long_side = weights.metadata.long_side
        self._mean, self._std = (
            torch.tensor(v).view(3, 1, 1) for v in (weights.metadata.mean, weights.metadata.std)
        )
        self._config = config
        self._prior = prior

    def __call__(self, image: Bytes) -> tuple[Bytes, Floats]:
        """Return ids and their probability, uint8 and float32 [H, W], of RGB uint8 [H, W, 3]."""
        height, width = image.shape[:2]
        total = torch.zeros(())
        for scale in self._config.scales:
            size = fit(height, width, 32 * round(self._long_side * scale / 32))
            small = torch.from_numpy(HostPixels().shrink(image, 'rgb', size))
            x = (small.permute(2, 0, 1)[None].float() / 255 - self._mean) / self._std
            with torch.inference_mode():
                both = self._network(torch.cat([x, x.flip(3)]))
                logits = both[:1] + both[1:].flip(3)
                logits = F.interpolate(logits / 2, size=size.padded, mode='bilinear')
                logits = logits[..., : size.scaled[0], : size.scaled[1]]
                total = total + F.interpolate(logits, size=(height, width), mode='bilinear')
        probability = (total / len(self._config.scales)).softmax(1)[0].numpy()
        if self._prior is not None:
            rows = cv2.resize(self._prior, (len(probability), height)).T[:, :, None]
            probability = probability * rows**self._config.prior_weight
            probability /= probability.sum(0, keepdims=True)
        best = probability.argmax(0).astype(np.uint8)
        return best, probability.max(0)


def row_prior(samples: list[Sample], taxonomy: Taxonomy) -> Floats | None:
    """
    Return float32 [ROWS, classes]: how likely each class is in a row, against its own mean.

    It is smoothed over an eighth of the height, since another camera's horizon lies elsewhere;
    None without samples.
    """
    if not samples:
        return None
    counts = np.zeros((ROWS, 256), np.float64)
    for sample in labelled(samples, 'the prior is taken from labels'):
        assert sample.label is not None
        labels = read_labels(sample.label)
        rows = np.arange(len(labels)) * ROWS // len(labels)
        flat = rows[:, None] * 256 + labels
        counts += np.bincount(flat.ravel(), minlength=ROWS * 256).reshape(ROWS, 256)
    known = counts[:, : len(taxonomy)]
    smooth = cv2.GaussianBlur(known, (1, 0), 0.1, sigmaY=ROWS / 8, borderType=cv2.BORDER_REPLICATE)
    share = smooth / np.maximum(smooth.sum(1, keepdims=True), 1)
    relative = share / np.maximum(share.mean(0, keepdims=True), 1e-9)
    return np.asarray(np.clip(relative, 0.02, 4), np.float32)


def _limits(
    labels: list[Bytes],
    sure: list[Bytes],
    classes: int,
    config: PseudoLabelConfig,
) -> npt.NDArray[np.int64]:
    """Return the least probability (0–255) at which a pixel of each class keeps its label."""
    histogram = np.zeros((classes, 256), np.int64)
    for best, certain in zip(labels, sure):
        joint = best.astype(np.int64) * 256 + certain
        histogram += np.bincount(joint.ravel(), minlength=classes * 256).reshape(classes, 256)
    from_top = histogram[:, ::-1].cumsum(1)
    wanted = config.keep * from_top[:, -1:]
    limits = 255 - (from_top >= wanted).argmax(1)
    return np.asarray(np.maximum(limits, round(config.least * 255)), np.int64)
