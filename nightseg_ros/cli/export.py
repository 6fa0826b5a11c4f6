# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg export``: weights as files for other runtimes, checked against torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """
    Export WEIGHTS to ONNX, check the graph against torch, and keep it for the node.

    The exit code is 1 where a runtime agrees with torch on fewer than 99.5 % of the pixels.
    """

    weights: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Weights files, or names of shipped ones."""
    out: Path | None = None
    """Folder for NAME.safetensors, NAME.onnx, NAME.md (the model card) and SHA256SUMS; without it
    only the node's cache of graphs is filled."""
    check: Path | None = None
    """Image, folder, video or bag to check on; without it pictures are made up."""
    frames: int = 8
    """How many frames are checked, spread over the source."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(ExportOptions, 'export', arguments)

    from nightseg_ros.config import ConfigError
    from nightseg_ros.evaluation.agreement import (
        agreement,
        made_up_images,
        model_card,
        source_images,
    )
    from nightseg_ros.files import replace_file
    from nightseg_ros.outputs import check_output
    from nightseg_ros.runtime.backend import ENOUGH
    from nightseg_ros.runtime.export import exported_graph
    from nightseg_ros.runtime.graph import GRAPHS
    from nightseg_ros.weights import load_weights, write_manifest

    if options.frames < 1:
        raise ConfigError(f'--frames must be at least 1, got {options.frames}')
    if not options.weights:
        raise ConfigError('name weights to export, for example: nightseg export day night')
    given = source_images(options.check, options.frames) if options.check else None
    worst = 1.0
    for name in options.weights:
        weights = load_weights(name)
        shares: dict[str, float] = {}
        graph = None
        if weights.metadata.task in GRAPHS:
            graph = exported_graph(weights, print)
            images = given or list(made_up_images(weights.metadata.long_side, options.frames))
            shares = agreement(weights, images, print)
            source = options.check or 'made-up pictures'
            for backend, share in shares.items():
                print(f'{weights.path.name}: {backend} agrees with torch on {share:.4%} '
                      f'of the pixels ({len(images)} frames of {source})')  # fmt: skip
            worst = min([worst, *shares.values()])
        else:
            print(f"{weights.path.name}: '{weights.metadata.task}' runs without an exported graph")
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            stem = options.out / weights.path.stem
            files = {
                '.safetensors': weights.path.read_bytes(),
                '.md': model_card(weights, shares).encode(),
                **({'.onnx': graph.read_bytes()} if graph is not None else {}),
            }
            for suffix, content in files.items():
                target = stem.with_name(stem.name + suffix)
                check_output(target, 'an export', Path.is_file, inputs=[weights.path])
                replace_file(target, content)
    if options.out is not None:
        write_manifest(options.out)
        print(f"exported to '{options.out}'")
    if worst < ENOUGH:
        print(f'nightseg export: {worst:.4%} agree, {ENOUGH:.1%} are wanted', file=sys.stderr)
        return 1
    return 0
