# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg quantize``: int8 graphs for OpenVINO, kept only where they do as float32 does."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from nightseg_ros.cli.options import parse

if TYPE_CHECKING:
    from nightseg_ros.data.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizeOptions:
    """
    Make WEIGHTS.int8 beside WEIGHTS from your camera's frames, by day and by night.

    The frames set the range of every layer; others of the same folders, and labelled data sets,
    decide: 98 % of the pixels with torch's label in every folder, at most half a point of mIoU
    lost. Where no try passes, nothing is written and the exit code is 1. backend:=openvino-int8
    asks for the result, backend:=auto takes it where it is fastest.
    """

    weights: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Segmenters: files, or names of shipped ones."""
    calibration: tuple[str, ...] = ()
    """Folders of frames."""
    dataset: tuple[str, ...] = ()
    """Labelled data sets, ADAPTER:ROOT[:SPLIT[:ONLY]]."""
    frames: int = 10
    """Frames of each folder to calibrate on."""
    checked: int = 16
    """Other frames of each folder to check on."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(QuantizeOptions, 'quantize', arguments)

    from nightseg_ros.config import ConfigError
    from nightseg_ros.data.datasets import open_dataset

    if not options.weights or not options.calibration:
        raise ConfigError(
            'name weights and frames of your cameras, for example: '
            'nightseg quantize night --calibration frames/day frames/night'
        )
    if options.frames < 1 or options.checked < 1:
        raise ConfigError('--frames and --checked must be at least 1')
    folders = {folder: open_dataset(f'images:{folder}') for folder in options.calibration}
    return max(_quantize(name, options, folders) for name in options.weights)


def _quantize(name: str, options: QuantizeOptions, folders: Mapping[str, Sequence[Sample]]) -> int:
    """Try one network; return the exit code."""
    import dataclasses
    import tempfile
    from importlib import metadata
    from pathlib import Path

    from nightseg_ros.data.datasets import open_dataset
    from nightseg_ros.evaluation.int8_gate import Gate, network_image
    from nightseg_ros.perception.pipeline import Segmenter
    from nightseg_ros.runtime.backends import OpenVINOBackend, open_backend, precisions
    from nightseg_ros.runtime.int8 import Int8Metadata, int8_path, write_int8
    from nightseg_ros.runtime.quantization import KEPT, model_files, quantize
    from nightseg_ros.weights import load_weights

    weights = load_weights(name)
    backend = open_backend('torch', 'cpu')
    taxonomy = Segmenter(weights, backend, print).taxonomy
    exact = backend.load(weights, print)
    long_side = weights.metadata.long_side
    used = {folder: _shared(samples, options) for folder, samples in folders.items()}
    images = [network_image(one, long_side) for chosen, _ in used.values() for one in chosen]
    checked = {folder: others for folder, (_, others) in used.items()}
    labelled = {spec: open_dataset(spec, taxonomy) for spec in options.dataset}
    gate = Gate(exact, long_side, checked, labelled, taxonomy)
    about = Int8Metadata(
        weights=weights.sha256, kept=0, rest='f32', frames=len(images),
        versions={package: metadata.version(package) for package in ('nncf', 'openvino')},
    )  # fmt: skip
    for kept in KEPT:
        print(f'{weights.path.name}: quantising from {len(images)} frames …', flush=True)
        files = model_files(quantize(weights, images, kept, print))
        for rest in precisions():
            about = dataclasses.replace(about, kept=kept, rest=rest)
            with tempfile.TemporaryDirectory() as folder:
                tried = dataclasses.replace(weights, path=Path(folder) / weights.path.name)
                write_int8(int8_path(tried), *files, about)
                verdict = gate.judge(OpenVINOBackend(layers='int8').load(tried, print))
            what = f'{weights.path.name}, all but {kept} convolutions, the rest in {rest}'
            print(f'{what}: {verdict}', flush=True)
            if verdict.passed:
                about = dataclasses.replace(
                    about, agreement=verdict.agreement, miou_loss=verdict.miou_loss
                )
                write_int8(int8_path(weights), *files, about)
                print(f"written to '{int8_path(weights)}'")
                return 0
    print(f'nightseg quantize: {weights.path.name} loses too much in int8', file=sys.stderr)
    return 1


def _shared(
    samples: Sequence[Sample], options: QuantizeOptions
) -> tuple[list[Sample], list[Sample]]:
    """Return frames to calibrate on and others to check on, both spread over the folder."""
    wanted = min(len(samples), options.frames + options.checked)
    spread = [samples[index * len(samples) // wanted] for index in range(wanted)]
    share = options.frames / (options.frames + options.checked)
    marks = [int((index + 1) * share) > int(index * share) for index in range(wanted)]
    calibrated = [one for one, mark in zip(spread, marks) if mark] or spread
    return calibrated, [one for one, mark in zip(spread, marks) if not mark] or spread
