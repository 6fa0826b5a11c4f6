# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg publish``: trained weights become shipped ones, with their scores and hash."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nightseg_ros.cli.options import parse
from nightseg_ros.config import ConfigError

if TYPE_CHECKING:
    from nightseg_ros.weights import Weights


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


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(PublishOptions, 'publish', arguments)

    import dataclasses

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
    from tempfile import TemporaryDirectory

    from nightseg_ros.training.run import round_weights
    from nightseg_ros.weights import TRUST, load_weights, save_weights

    tensors = round_weights(weights, _exact())
    tensors |= {name: t for name, t in weights.tensors.items() if name.startswith(TRUST)}
    # through a file, since the cache of graphs goes by a file's hash
    with TemporaryDirectory(prefix='nightseg-') as folder:
        path = Path(folder) / options.weights.name
        save_weights(path, tensors, weights.metadata, half=options.half)
        return load_weights(path)


def _exact() -> int:
    try:
        from nightseg_ros.runtime.backends import EXACT
    except ImportError as error:
        raise ConfigError(
            'bfloat16 runs in OpenVINO, which is missing: pip install openvino'
        ) from error
    return EXACT


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
