# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether an int8 graph is good enough to be used: agreement with torch, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.data.sample import Sample, read_image, read_labels
from nightseg_ros.evaluation.metrics import RARE, ConfusionMatrix
from nightseg_ros.runtime.backend import Run
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.taxonomy import Taxonomy

#: Share of the pixels of each folder that must get torch's label.
AGREEMENT = 0.98
#: mIoU, as a share of 1, that int8 may cost on each labelled data set.
LOSS = 0.005

_pixels = HostPixels()


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gate measured."""

    agreement: dict[str, float]
    """By folder."""
    miou_loss: dict[str, float]
    """By data set; negative where int8 scores higher."""

    @property
    def passed(self) -> bool:
        """Whether the graph may be used."""
        return min(self.agreement.values(), default=0.0) >= AGREEMENT and all(
            loss <= LOSS for loss in self.miou_loss.values()
        )

    def __str__(self) -> str:
        """Return one line."""
        parts = [f'{share:.2%} of {name}' for name, share in self.agreement.items()]
        parts += [f'mIoU9 {-loss:+.4f} on {name}' for name, loss in self.miou_loss.items()]
        return ', '.join(parts)


def network_image(sample: Sample, long_side: int) -> npt.NDArray[np.uint8]:
    """Return a picture as a network of ``long_side`` gets it, uint8 [1, h, w, 3] RGB."""
    image = read_image(sample.image)
    size = fit(image.shape[0], image.shape[1], long_side)
    return _pixels.stack([_pixels.shrink(image, 'rgb', size)])


class Gate:
    """Judges runs of one network; the first run it gets, torch's, is the measure."""

    def __init__(
        self,
        exact: Run,
        long_side: int,
        folders: Mapping[str, Sequence[Sample]],
        labelled: Mapping[str, Sequence[Sample]],
        taxonomy: Taxonomy,
    ) -> None:
        """Label everything by ``exact``: folders for agreement, labelled data for mIoU9."""
        self._long_side, self._taxonomy = long_side, taxonomy
        self._folders = {
            name: [(image, exact(image)[0]) for image in self._images(samples)]
            for name, samples in folders.items()
        }
        self._labelled = labelled
        self._wanted = {name: self._miou9(exact, samples) for name, samples in labelled.items()}

    def judge(self, run: Run) -> Verdict:
        """Measure a run; mIoU only where enough labels agree."""
        agreement = {
            name: float(np.mean([(run(image)[0] == wanted).mean() for image, wanted in pairs]))
            for name, pairs in self._folders.items()
        }
        verdict = Verdict(agreement=agreement, miou_loss={})
        if not verdict.passed:
            return verdict
        loss = {
            name: self._wanted[name] - self._miou9(run, samples)
            for name, samples in self._labelled.items()
        }
        return Verdict(agreement=agreement, miou_loss=loss)

    def _images(self, samples: Sequence[Sample]) -> Iterator[npt.NDArray[np.uint8]]:
        return (network_image(sample, self._long_side) for sample in samples)

    def _miou9(self, run: Run, samples: Sequence[Sample]) -> float:
        matrix = ConfusionMatrix(self._taxonomy)
        for sample, image in zip(samples, self._images(samples)):
            assert sample.label is not None
            truth = read_labels(sample.label)
            size = fit(truth.shape[0], truth.shape[1], self._long_side)
            matrix.add(truth, _pixels.enlarge(run(image)[0][0], size))
        return matrix.miou(without=[name for name in RARE if name in self._taxonomy.classes])
