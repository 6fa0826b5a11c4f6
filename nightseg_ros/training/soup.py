# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The mean of several trainings' weights, which keeps what each is good at (a model soup)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nightseg_ros.networks import build_from
from nightseg_ros.weights import WeightsError, load_weights, network_tensors, save_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class SoupConfig:
    """Settings of ``nightseg train soup``."""

    weights: tuple[str, ...]
    """Weights of one network, fine-tuned from one another: only then is their mean a network. A
    file that is named twice counts twice."""
    out: str
    """File to write. It says that it was trained on the data of all of them, under the licences of
    all; the rest of the metadata is that of the last."""
    long_side: int = 0
    """Long side of the pictures at which the mean will be used; 0 keeps that of the last."""

    def __post_init__(self) -> None:
        """Refuse a mean of one."""
        if len(self.weights) < 2:
            raise ValueError(f'weights must be two files or more, got {list(self.weights)}')
        if self.long_side < 0:
            raise ValueError(f'long_side must not be negative, got {self.long_side}')


def write_soup(config: SoupConfig) -> Path:
    """
    Write the plain mean of the tensors (Wortsman et al. 2022) and return its path.

    ``WeightsError`` names a file whose network is another one.
    """
    parts = [load_weights(name) for name in config.weights]
    last = parts[-1]
    for part in parts:
        if (part.metadata.network, part.metadata.arch) != (
            last.metadata.network,
            last.metadata.arch,
        ):
            raise WeightsError(
                f"'{part.path}' is {part.metadata.network} {part.metadata.arch}, "
                f"'{last.path}' {last.metadata.network} {last.metadata.arch}; they have no mean"
            )
        build_from(part)
    mean = network_tensors(last.tensors)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            mean[name] = torch.stack([part.tensors[name] for part in parts]).mean(0)
    training = {**last.metadata.training, 'mean_of': [part.sha256 for part in parts]}
    path = Path(config.out)
    metadata = dataclasses.replace(
        last.metadata,
        training=training,
        long_side=config.long_side or last.metadata.long_side,
        data=_joined([part.metadata.data for part in parts], ', '),
        ratio=sum(part.metadata.ratio for part in parts) / len(parts),
        license=_joined([part.metadata.license for part in parts], '; '),
        # neither confidence nor reliability is that of one of them
        temperature=1.0,
        bfloat16=0.0,
    )
    save_weights(path, mean, metadata)
    return path


def _joined(texts: Sequence[str], separator: str) -> str:
    """Return what the lists in ``texts`` name, each once and in their order."""
    named = [name for text in texts for name in text.split(separator) if name]
    return separator.join(dict.fromkeys(named))
