# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg export`` and ``publish``: weights for other runtimes, and weights to ship."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nightseg_ros.cli.options import parse
from nightseg_ros.config import ConfigError

if TYPE_CHECKING:
    from nightseg_ros.weights import Weights


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


def export(arguments: Sequence[str]) -> int:
    """Export, compare, and write the files."""
    options = parse(ExportOptions, 'export', arguments)

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
                **({'.onnx': graph} if graph is not None else {}),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishOptions:
    """Copy WEIGHTS to MODELS/NAME.safetensors, add commit and scores, renew SHA256SUMS."""

    weights: Annotated[Path, tyro.conf.Positional]
    """What a training wrote."""
    name: str
    """Name of the shipped file, without its suffix."""
    models: Path = Path('models')
    """Folder to ship from."""
    metrics: Path | None = None
    """metrics.json of `nightseg evaluate`, whose headline figures go into the metadata."""
    temperature: float | None = None
    """New temperature of the confidence; without it the weights keep theirs."""
    half: bool = True
    """Store float16, which halves the file."""
    bf16: tuple[Path, ...] = ()
    """Folders of frames such as these weights will see: the weights are rounded to what bfloat16
    holds, and compared in it and in float32. Where 99.5 % of each folder's labels stay the same,
    backend:=auto may use it on CPUs that have it."""
    frames: int = 24
    """How many frames of each folder are compared."""


def publish(arguments: Sequence[str]) -> int:
    """Write the shipped file and the manifest."""
    options = parse(PublishOptions, 'publish', arguments)

    from nightseg_ros.outputs import check_output
    from nightseg_ros.weights import load_weights, save_weights, write_manifest

    weights = load_weights(options.weights)
    path = options.models / f'{options.name}.safetensors'
    check_output(path, 'weights', Path.is_file, inputs=[weights.path])
    changes: dict[str, Any] = {'commit': _commit()}
    if options.metrics is not None:
        changes['metrics'] = _headline(options.metrics)
    if options.temperature is not None:
        changes['temperature'] = options.temperature
    if options.bf16:
        weights = _rounded(weights, options)
        changes['bfloat16'] = _bfloat16(weights, options)
    metadata = dataclasses.replace(weights.metadata, **changes)
    sha256 = save_weights(path, weights.tensors, metadata, half=options.half)
    write_manifest(options.models)
    print(f"'{path}': {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}")
    return 0


def _rounded(weights: Weights, options: PublishOptions) -> Weights:
    """Return the weights as they will be read back, of bfloat16's numbers."""
    from nightseg_ros.runtime.backends import EXACT
    from nightseg_ros.training.average import round_weights
    from nightseg_ros.weights import RELIABILITY, load_weights, save_weights

    tensors = round_weights(weights, EXACT)
    tensors |= {name: t for name, t in weights.tensors.items() if name.startswith(RELIABILITY)}
    # through a file, since the cache of graphs goes by a file's hash
    with TemporaryDirectory(prefix='nightseg-') as folder:
        path = Path(folder) / options.weights.name
        save_weights(path, tensors, weights.metadata, half=options.half)
        return load_weights(path)


def _bfloat16(weights: Weights, options: PublishOptions) -> float:
    """Return the share of labels that bfloat16 keeps, that of the worst folder."""
    from nightseg_ros.evaluation.agreement import agreement, source_images

    if options.frames < 1:
        raise ConfigError(f'--frames must be at least 1, got {options.frames}')
    worst = 1.0
    for folder in options.bf16:
        images = source_images(folder, options.frames)
        share = agreement(weights, images, print, ('openvino-bf16',))['openvino-bf16']
        print(f"bfloat16 keeps {share:.2%} of the labels of {len(images)} frames of '{folder}'")
        worst = min(worst, share)
    return round(worst, 5)


def _headline(file: Path) -> dict[str, Any]:
    """Return the figures of each data set that fit a line of a model card."""
    try:
        result = json.loads(file.read_text(encoding='utf-8'))
        return {
            name: {
                **{key: run['all'][key] for key in ('miou', 'miou9', 'pixel_acc')},
                'mean_of_sources_miou9': round(run['mean_of_sources_miou9'], 4),
            }
            for name, run in result['runs'].items()
        } | {'route': result['route']}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{file}' is no metrics.json of `nightseg evaluate` ({error!r}): make it anew"
        ) from error


def _commit() -> str:
    """Return the commit of the code in the working folder, '' where there is none."""
    command = ['git', 'rev-parse', '--short', 'HEAD']
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ''
    return done.stdout.strip()
