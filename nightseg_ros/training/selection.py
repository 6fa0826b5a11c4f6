# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint chosen by its score on data that is for choosing only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.confusion import ConfusionMatrix
from nightseg_ros.perception.segmenter import Segmenter
from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.torch_backend import TorchBackend
from nightseg_ros.weights import Weights, WeightsMetadata, save_weights


class Selection:
    """
    The best score so far and its step, which travel in the checkpoint.

    The score is the mIoU over the classes present, of the graph that is deployed.
    """

    def __init__(self, samples: Sequence[Sample], device: str, name: str) -> None:
        """
        Check that every sample is labelled.

        ``device`` is where the network is scored, ``name`` what the weights call the data.
        """
        unlabelled = [sample.image for sample in samples if sample.label is None]
        if unlabelled:
            raise DataError(f"'{unlabelled[0]}' has no labels; selection data is labelled")
        self.samples, self.name = list(samples), name
        self.backend = TorchBackend(device)
        self.best = torch.tensor(-1.0, dtype=torch.float64)
        self.step = torch.tensor(-1)

    def state_dict(self) -> dict[str, Any]:
        """Return best score and step."""
        return {'best': self.best, 'step': self.step}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take them back."""
        self.best, self.step = state['best'], state['step']

    def score(self, network: nn.Module, metadata: WeightsMetadata) -> float:
        """Return the mIoU in [0, 1] of a network that is described by ``metadata``."""
        weights = Weights(
            path=Path('the network in training'),
            sha256='',
            metadata=metadata,
            tensors={name: tensor.cpu() for name, tensor in network.state_dict().items()},
        )
        with torch.random.fork_rng():  # building a network draws random numbers
            segmenter = Segmenter(weights, self.backend, lambda text: None)
        pixels = self.backend.pixels
        matrix = ConfusionMatrix(segmenter.taxonomy)
        for sample in self.samples:
            assert sample.label is not None
            image, truth = read_image(sample.image), read_labels(sample.label)
            size = fit(image.shape[0], image.shape[1], metadata.long_side)
            labels, *_ = segmenter(pixels.stack([pixels.shrink(image, 'rgb', size)]))
            matrix.add(truth, pixels.download(pixels.enlarge(labels[0], size)))
        return matrix.miou()

    def keep_best(
        self, path: Path, network: nn.Module, metadata: WeightsMetadata, step: int
    ) -> float:
        """Score the network and write it to ``path`` if it is the best so far."""
        score = self.score(network, metadata)
        if score > float(self.best):
            self.best, self.step = torch.tensor(score, dtype=torch.float64), torch.tensor(step)
            chosen = {'step': step, 'miou': score, 'data': self.name}
            training = {**metadata.training, 'selected': chosen}
            save_weights(path, network.state_dict(), replace(metadata, training=training))
        return score
