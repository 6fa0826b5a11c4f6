# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``nightseg train RECIPE``, ``calibrate``, ``sweep``, ``export``, ``publish``: ways to weights.

The first three take ``--config FILE.yaml`` and flags, which win over the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
import dataclasses
from dataclasses import dataclass
from functools import partial
import importlib
import json
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TYPE_CHECKING

from nightseg_ros.cli.options import read_config
from nightseg_ros.config import ConfigError, Limited, Positive
from nightseg_ros.files import replace_file, share_dir
from nightseg_ros.outputs import check_output
from nightseg_ros.training import CalibrationConfig, SweepConfig
import tyro

if TYPE_CHECKING:
    from nightseg_ros.weights import Weights


def _recipe(
    verb: str, config: str, function: str, made: str = 'weights', module: str = ''
) -> Callable[[Sequence[str]], int]:
    """Return the verb that runs a training with its config and names what it wrote."""

    def run(arguments: Sequence[str]) -> int:
        # whoever follows a log sees each line at once
        with suppress(AttributeError):
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        training = importlib.import_module(f'nightseg_ros.training.{module or verb}')
        options = read_config(getattr(training, config), f'train {verb}', arguments)
        done = getattr(training, function)(options)
        for path in done if isinstance(done, tuple) else (done,):
            print(f"{made}: '{path}'")
        return 0

    return run


segmenter = _recipe('segmenter', 'SegmenterConfig', 'train_segmenter')
pseudo_labels = _recipe('pseudo_labels', 'PseudoLabelConfig', 'write_pseudo_labels', 'labels')
translator = _recipe('translator', 'TranslatorConfig', 'train_translator')
fast_translator = _recipe(
    'fast_translator', 'FastTranslatorConfig', 'train_fast_translator', module='paired'
)
day_to_night = _recipe('day_to_night', 'DayToNightConfig', 'train_day_to_night', module='paired')
average = _recipe('average', 'AverageConfig', 'average_weights')
illumination = _recipe('illumination', 'IlluminationConfig', 'train_illumination')


def calibrate(arguments: Sequence[str]) -> int:
    config = read_config(CalibrationConfig, 'calibrate', arguments)

    from nightseg_ros.training.calibrate import calibrate

    weights = calibrate(config, partial(print, flush=True))
    about = weights.metadata.training['calibration']
    for key, value in about.get('reliability', {}).items():
        print(f'reliability: {key} {value}')
    temperature = weights.metadata.temperature
    print(f"'{weights.path}': temperature {temperature:.3f}, SHA-256 {weights.sha256}")
    return 0


def sweep(arguments: Sequence[str]) -> int:
    own = share_dir() / 'config' / 'training' / 'sweep.yaml'
    options = read_config(SweepConfig, 'sweep', arguments, own)

    from nightseg_ros.training.sweep import sweep

    text, files = sweep(options, partial(print, flush=True))
    print(f'\n{text}')
    for file in files:
        print(f"'{file}'")
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions(Limited):
    """
    Export WEIGHTS to ONNX, check the graph against torch, and keep it for the node.

    The exit code is 1 where a runtime agrees with torch on fewer than 99.5 % of the pixels.
    """

    weights: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Weights files, or names of shipped ones."""
    out: Path | None = None
    """Folder for NAME.safetensors, which runs where there is no torch, NAME.onnx, NAME.md (the
    model card) and SHA256SUMS; without it only the node's cache of graphs is filled."""
    check: Path | None = None
    """Image, folder, video or bag to check on; without it pictures are made up."""
    frames: Positive = 8
    """How many frames are checked, spread over the source."""


def export(options: ExportOptions) -> int:
    from nightseg_ros.evaluation.agreement import (
        agreement,
        made_up_images,
        model_card,
        source_images,
    )
    from nightseg_ros.runtime.backend import MIN_AGREEMENT
    from nightseg_ros.runtime.export import embed_graph, exported_graph
    from nightseg_ros.runtime.graph import GRAPHS
    from nightseg_ros.weights import list_weights, load_weights, replace_listed

    if not options.weights:
        raise ConfigError('name weights to export, for example: nightseg export day night')
    every = [load_weights(name) for name in options.weights]
    for called, count in Counter(weights.path.stem for weights in every).items():
        if count > 1 and options.out is not None:
            raise ConfigError(f"{count} weights are called '{called}'; give each its own --out")
    given = source_images(options.check, options.frames) if options.check else None
    worst = 1.0
    for weights in every:
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
            whole, card, onnx = (Path(f'{stem}{end}') for end in ('.safetensors', '.md', '.onnx'))
            for target in (whole, card, onnx):
                check_output(target, 'an export', inputs=[weights.path])
            replace_listed(whole, weights.path.read_bytes())
            if graph is not None:
                replace_file(onnx, graph)
            embed_graph(whole)
            list_weights(whole)
            # with the hash that the file has now
            replace_file(card, model_card(load_weights(whole), shares).encode())
    if options.out is not None:
        print(f"exported to '{options.out}'")
    if worst < MIN_AGREEMENT:
        text = f'nightseg export: {worst:.4%} agree, {MIN_AGREEMENT:.1%} are wanted'
        print(text, file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishOptions(Limited):
    """Copy WEIGHTS to MODELS/NAME.safetensors, with graph and scores; list it in SHA256SUMS."""

    weights: Annotated[Path, tyro.conf.Positional]
    """What a training wrote."""
    name: str
    """Name of the shipped file, without its suffix."""
    models: Path = Path('models')
    """Folder to ship from."""
    metrics: Path | None = None
    """metrics.json of `nightseg evaluate`, whose headline figures go into the metadata."""
    half: bool = True
    """Store float16, which halves the file."""
    bf16: tuple[Path, ...] = ()
    """Folders of frames such as these weights will see: the weights are rounded to what bfloat16
    holds, and compared in it and in float32. Where 99.5 % of each folder's labels stay the same,
    backend:=auto may use it on CPUs that have it."""
    frames: Positive = 24
    """How many frames of each folder are compared."""


def publish(options: PublishOptions) -> int:
    from nightseg_ros.runtime.export import replace_weights
    from nightseg_ros.weights import list_weights, load_weights

    weights = load_weights(options.weights)
    path = options.models / f'{options.name}.safetensors'
    check_output(path, 'weights', inputs=[weights.path])
    changes: dict[str, Any] = {'commit': _commit()}
    if options.metrics is not None:
        changes['metrics'] = _headline(options.metrics, weights.sha256)
    if options.bf16:
        weights, changes['bfloat16'] = _rounded(weights, options)
    metadata = dataclasses.replace(weights.metadata, **changes)
    weights = dataclasses.replace(weights, metadata=metadata)
    shipped = replace_weights(path, weights, half=options.half)
    list_weights(path)
    print(f"'{path}': {path.stat().st_size / 1e6:.1f} MB, SHA-256 {shipped.sha256}")
    return 0


def _rounded(weights: Weights, options: PublishOptions) -> tuple[Weights, float]:
    """
    Return the weights as they will be read back, of bfloat16's numbers.

    Beside them stands the share of labels that bfloat16 keeps, that of the worst folder.
    """
    from nightseg_ros.evaluation.agreement import agreement, source_images
    from nightseg_ros.runtime.backends import FLOAT32_LAYERS
    from nightseg_ros.runtime.export import replace_weights
    from nightseg_ros.training.average import round_weights
    from nightseg_ros.weights import RELIABILITY

    tensors = round_weights(weights, FLOAT32_LAYERS)
    tensors |= {name: t for name, t in weights.tensors.items() if name.startswith(RELIABILITY)}
    # through a file, since the cache of graphs goes by a file's hash
    with TemporaryDirectory(prefix='nightseg-') as scratch:
        path = Path(scratch) / options.weights.name
        rounded = dataclasses.replace(weights, tensors=tensors)
        weights = replace_weights(path, rounded, half=options.half, graph=False)
    worst = 1.0
    for folder in options.bf16:
        images = source_images(folder, options.frames)
        share = agreement(weights, images, print, ('openvino-bf16',))['openvino-bf16']
        print(f"bfloat16 keeps {share:.2%} of the labels of {len(images)} frames of '{folder}'")
        worst = min(worst, share)
    return weights, round(worst, 5)


def _headline(file: Path, sha256: str) -> dict[str, Any]:
    """Return the figures of each data set that fit a line of a model card, of these weights."""
    try:
        result = json.loads(file.read_text(encoding='utf-8'))
        # the runs of --compare may be of several weights
        own = {
            one['name']: one['options']['route']
            for one in result['configurations']
            if sha256 in {part['sha256'] for part in one['pipeline']['weights'].values()}
        }
        figures = {
            name: {
                **{key: run['all'][key] for key in ('miou', 'miou9', 'pixel_acc')},
                'mean_of_sources_miou9': run['mean_of_sources_miou9'],
            }
            for name, run in result['runs'].items()
            if run['configuration'] in own
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{file}' is no metrics.json of `nightseg evaluate` ({error!r}): make it anew"
        ) from error
    if not own:
        raise ConfigError(f"'{file}' has scores of other weights: evaluate these")
    for name, scores in figures.items():
        if None in scores.values():
            raise ConfigError(
                f"'{file}' has no scores of '{name}': evaluate with --dataset or --labels"
            )
    return figures | {'route': next(iter(own.values()))}


def _commit() -> str:
    """Return the commit of this code, '' where it is not run from its repository."""
    root = Path(__file__).resolve().parents[2]
    with suppress(OSError, subprocess.CalledProcessError):
        # an installed package may lie in a repository of something else
        if (root / '.git').exists():
            command = ['git', '-C', str(root), 'rev-parse', '--short', 'HEAD']
            return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return ''
