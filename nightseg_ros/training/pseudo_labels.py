# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Labels for unlabelled frames: what a trained segmenter is surest of, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path

from nightseg_ros.config import Limited, Share
from nightseg_ros.data.datasets import open_all
from nightseg_ros.data.sample import DataError, encode_labels, read_image, read_labels, SCENE
from nightseg_ros.files import read_json
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.outputs import whole_folder
from nightseg_ros.runtime.backend import Log
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.training.crops import to_network
from nightseg_ros.training.losses import open_judges
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelConfig(Limited):
    """Settings of ``nightseg train pseudo_labels``."""

    data: tuple[str, ...]
    """Unlabelled data sets, ADAPTER:ROOT[:SPLIT]."""
    teacher: tuple[str, ...]
    """Weights of the segmenter that labels them, then of others; a pixel on which one of those
    disagrees is void."""
    out: str
    """Folder to write: one PNG of ids a frame, those of unsure pixels in scene/, manifest.json."""
    scales: tuple[float, ...] = (0.75, 1.0, 1.5)
    """Sizes, each also mirrored, over which the teacher's probabilities are averaged."""
    keep: Share = 0.5
    """Share of each class's pixels that keep their label, the surest first; all that are sure to
    99.8 % keep it."""
    least: Share = 0.5
    """Probability below which no pixel keeps its label."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        for name in ('data', 'teacher'):
            if not getattr(self, name):
                raise ValueError(f"'{name}' names nothing")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"'scales' must be positive factors, got {self.scales}")


def write_pseudo_labels(config: PseudoLabelConfig, log: Log = print) -> Path:
    """
    Label every frame and return the folder; ``paired:IMAGES:OUT`` is then a data set.

    Thresholds are per class over the whole data set (class-balanced, Zou et al. 2018), so that a
    frequent class does not push a rare one out. The folder ``scene`` in it keeps the best guess
    for every pixel: nothing trains on it, but a synthetic night needs to know where the sky is.
    """
    teachers = open_judges(config.teacher)
    taxonomy = teachers[0].taxonomy
    samples = open_all(config.data, taxonomy)
    for stem, count in Counter(sample.image.stem for sample in samples).items():
        if count > 1:
            raise DataError(f"{count} images are called '{stem}'; give each folder its own --out")
    out, inputs = Path(config.out), {sample.image.parent for sample in samples}
    # what an earlier run wrote goes: its labels would be taken for those of this one
    with whole_folder(
        out, 'pseudo-labels', _is_ours, inputs=inputs, force=True, error=DataError
    ) as folder:
        (folder / SCENE).mkdir()
        # pixels of each class by how sure they are
        histogram = np.zeros((len(taxonomy), 256), np.int64)
        for number, sample in enumerate(samples, start=1):
            image = read_image(sample.image)
            (best, probability), *others = (
                _label(teacher, image, config.scales) for teacher in teachers
            )
            for other, _ in others:
                probability *= other == best
            certain = np.round(probability * 255).astype(np.uint8)
            joint = best.astype(np.int64) * 256 + certain
            counts = np.bincount(joint.ravel(), minlength=histogram.size)
            histogram += counts.reshape(histogram.shape)
            (folder / SCENE / f'{sample.image.stem}.png').write_bytes(encode_labels(best))
            # until the thresholds are known, how sure each pixel is
            (folder / f'{sample.image.stem}.png').write_bytes(encode_labels(certain))
            if number % 20 == 0 or number == len(samples):
                log(f'labelled {number}/{len(samples)}')
        limits = _limits(histogram, config)
        for name in (f'{sample.image.stem}.png' for sample in samples):
            best, certain = (read_labels(place / name) for place in (folder / SCENE, folder))
            kept = np.where(certain >= limits[best], best, UNLABELLED).astype(np.uint8)
            (folder / name).write_bytes(encode_labels(kept))
        for place in (folder, folder / SCENE):
            # what the ids mean, for whoever reads them as another taxonomy
            about = json.dumps(taxonomy.to_dict()) + '\n'
            (place / 'taxonomy.json').write_text(about, encoding='utf-8')
        thresholds = zip(taxonomy.classes, limits.tolist())
        manifest = {
            'teacher': [teacher.weights.sha256 for teacher in teachers],
            'config': {name: getattr(config, name) for name in ('scales', 'keep', 'least')},
            'thresholds': {name: round(limit / 255, 3) for name, limit in thresholds},
            'frames': len(samples),
        }
        text = json.dumps(manifest, indent=2) + '\n'
        (folder / 'manifest.json').write_text(text, encoding='utf-8')
    return out


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but as many labels as its manifest says."""
    scene = {path.name for path in (folder / SCENE).glob('*')}
    names = {SCENE, 'manifest.json', *scene, *(f'{SCENE}/{name}' for name in scene)}
    count = sum(name.endswith('.png') for name in scene)
    counted = read_json(folder / 'manifest.json').get('frames') == count
    return counted and {folder / name for name in names}.issuperset(folder.rglob('*'))


@torch.inference_mode()
def _label(
    teacher: FrozenSegmenter, image: Bytes, scales: Sequence[float]
) -> tuple[Bytes, Floats]:
    """
    Return ids and their probability, uint8 and float32 [H, W], of RGB uint8 [H, W, 3].

    Logits are averaged over sizes and mirror images.
    """
    height, width = image.shape[:2]
    long_side = teacher.weights.metadata.long_side
    total = torch.zeros(())
    for scale in scales:
        size = fit(height, width, 32 * round(long_side * scale / 32))
        x = to_network(torch.from_numpy(HostPixels().shrink(image, 'rgb', size))[None])
        both = teacher(torch.cat([x, x.flip(3)]))
        logits = F.interpolate(
            (both[:1] + both[1:].flip(3)) / 2, size=size.padded, mode='bilinear'
        )
        logits = logits[..., : size.scaled[0], : size.scaled[1]]
        total = total + F.interpolate(logits, size=(height, width), mode='bilinear')
    probability = (total / len(scales)).softmax(1)[0].numpy()
    return probability.argmax(0).astype(np.uint8), probability.max(0)


def _limits(histogram: Counts, config: PseudoLabelConfig) -> Counts:
    """Return the least probability (0–255) at which a pixel of each class keeps its label."""
    from_top = histogram[:, ::-1].cumsum(1)
    wanted = config.keep * from_top[:, -1:]
    limits = 255 - (from_top >= wanted).argmax(1)
    return np.asarray(np.maximum(limits, max(1, round(config.least * 255))), np.int64)
