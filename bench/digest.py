# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Digests of everything that the pipeline says of real frames, to show that a change changes nothing.

python bench/digest.py DATA --out out/digests/NAME.json [--every 20] [--backends torch openvino]
diff BEFORE.json AFTER.json

For each set, backend and route one SHA-256 of the labels' bytes, of routes with states, and of
reliabilities. Of the clips every 20th frame is taken. Digests hold for one machine and one
number of threads. docs/results/digests/ holds those before and after the redesign (--every 40,
OMP_NUM_THREADS=1, x86-64 with AVX-512).
"""

from __future__ import annotations

import hashlib
from itertools import islice
import json
from pathlib import Path
from typing import Any

from nightseg_ros.data.source import open_source
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
import tyro

FOLDERS = ('camvid/day_test/images', 'camvid/dusk/images', 'night_dev/images')
ROUTES = ('auto', 'day', 'night', 'translate')


def digest(pipeline: Pipeline, path: Path, every: int) -> dict[str, Any]:
    """Return the digests of one folder or clip by the pipeline's present route."""
    source = open_source(path)
    hashes = {name: hashlib.sha256() for name in ('labels', 'decisions', 'reliabilities')}
    frames = 0
    pipeline.reset()
    for _, frame in islice(source, 0, None, every):
        if not isinstance(frame, Frame):
            continue
        if not source.sequence:
            pipeline.reset()
        [result] = pipeline.process([frame])
        assert result.labels is not None
        frames += 1
        hashes['labels'].update(result.labels.tobytes())
        hashes['decisions'].update(f'{result.decision.route} {result.decision.state};'.encode())
        hashes['reliabilities'].update(f'{result.reliability!r};'.encode())
    return {'frames': frames, **{name: value.hexdigest()[:16] for name, value in hashes.items()}}


def main(
    data: Path, /, *, out: Path, every: int = 20, backends: tuple[str, ...] = ('torch', 'openvino')
) -> None:
    """Write the digests of every set, backend and route."""
    paths = {name: (data / name, 1) for name in FOLDERS}
    paths |= {f'clips/{p.name}': (p, every) for p in sorted((data / 'clips').glob('*.mp4'))}
    found: dict[str, Any] = {name: {backend: {} for backend in backends} for name in paths}
    for backend in backends:
        for route in ROUTES:
            # translate is loaded by the routes that need it only
            config = PipelineConfig(backend=backend, threads=1, route=route)
            pipeline = Pipeline.load(config)
            for name, (path, step) in paths.items():
                found[name][backend][route] = digest(pipeline, path, step)
                print(backend, route, name, found[name][backend][route], flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({'every': every, 'sets': found}, indent=1) + '\n')


if __name__ == '__main__':
    tyro.cli(main)
