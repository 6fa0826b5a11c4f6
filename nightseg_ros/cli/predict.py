# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg predict``: masks, overlays and decisions of an image, a folder, a video or a bag."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nightseg_ros.cli.options import PipelineOptions, parse

if TYPE_CHECKING:
    from nightseg_ros.perception.result import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictOptions(PipelineOptions):
    """
    Label every frame of SOURCE and write OUT/labels, overlay, confidence and predictions.jsonl.

    A folder's pictures are routed one by one; with --rate they are a drive, and the router waits
    for its dwell times. Exit code 1: some frames could not be read.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Image, folder of images, video, or bag."""
    out: Path
    """Folder to write; files of the same names are replaced."""
    topic: str | None = None
    """Image topic of a bag; without it the only one there is."""
    rate: float | None = None
    """Frames a second of a folder (makes it a sequence), or of a video instead of its own."""


#: Folders of OUT and the suffix of their files.
OUTPUTS = {'labels': '.png', 'overlay': '.jpg', 'confidence': '.png'}


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(PredictOptions, 'predict', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.data.source import open_source
    from nightseg_ros.files import partial_file
    from nightseg_ros.outputs import check_output
    from nightseg_ros.perception.frame import FrameError
    from nightseg_ros.perception.pipeline import Pipeline
    from nightseg_ros.perception.result import Want

    source = open_source(options.source, options.topic, rate=options.rate)
    for folder in OUTPUTS:
        check_output(options.out / folder, 'a result', _is_ours, inputs=[options.source])
    want = Want(labels=True, confidence=True, overlay=True)
    broken = 0
    routes: Counter[str] = Counter()
    with Progress('loading the networks', source.count) as progress:
        pipeline = Pipeline.load(options.pipeline_config(), say=progress.say)
        for folder in OUTPUTS:
            (options.out / folder).mkdir(parents=True, exist_ok=True)
        with (
            partial_file(options.out / 'predictions.jsonl') as partial,
            partial.open('w', encoding='utf-8') as log,
        ):
            for number, (stem, frame) in enumerate(source):
                if isinstance(frame, FrameError):
                    broken += 1
                    progress.say(f'skipped: {frame}')
                    # a mask of an earlier run must not pass for this frame's
                    for folder, suffix in OUTPUTS.items():
                        (options.out / folder / f'{stem}{suffix}').unlink(missing_ok=True)
                    continue
                if not source.sequence:
                    pipeline.reset(reason='a picture on its own')
                [result] = pipeline.process([frame], want)
                _write(options.out, stem, result)
                log.write(json.dumps(record(stem, result)) + '\n')
                routes[result.decision.route] += 1
                progress.set(number + 1, text=f'{stem} {result.decision.route}')
    taken = ', '.join(f'{route} {count}' for route, count in routes.most_common()) or 'none'
    print(f"{sum(routes.values())} frames labelled in '{options.out}'; routes: {taken}")
    if broken:
        print(f'nightseg predict: {broken} frames could not be read (see above)', file=sys.stderr)
    return 1 if broken else 0


def record(stem: str, result: Result) -> dict[str, Any]:
    """
    Return one line of predictions.jsonl; ``stamp`` is in nanoseconds, ``ms`` by stage.

    ``score`` and ``reliability``, 0 to 1, are None where they are not known.
    """
    return {
        'frame': stem,
        'stamp': result.frame.stamp_ns,
        'score': _rounded(result.illumination.score),
        'state': result.decision.state,
        'route': result.decision.route,
        'reason': result.decision.reason,
        'reliability': _rounded(result.reliability),
        'ms': {stage: round(value, 2) for stage, value in result.ms.items()},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _is_ours(folder: Path) -> bool:
    """Tell a folder of masks or pictures by the list beside it, which may be unfinished."""
    out = folder.parent
    return (out / 'predictions.jsonl').is_file() or any(out.glob('.predictions-*.jsonl'))


def _write(out: Path, stem: str, result: Result) -> None:
    from nightseg_ros.data.pictures import write_picture

    for folder, suffix in OUTPUTS.items():
        picture = getattr(result, folder)
        assert picture is not None
        write_picture(out / folder / f'{stem}{suffix}', picture)
