# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg predict`` and ``translate``: frames in, masks or frames of the other light out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TYPE_CHECKING

from nightseg_ros.cli.options import PipelineOptions, Progress, tell_problems
from nightseg_ros.config import ConfigError
from nightseg_ros.outputs import check_output, locked
import tyro

if TYPE_CHECKING:
    from nightseg_ros.perception.result import Result

#: Folders of a prediction and the suffix of their files.
OUTPUTS = {'labels': '.png', 'overlay': '.jpg', 'confidence': '.png'}
#: The list of the frames, and until it is whole.
LIST = 'predictions.jsonl'
UNFINISHED = '.predictions-unfinished.jsonl'
#: Pairs of pictures on the contact sheet of a translation.
TILES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictOptions(PipelineOptions):
    """
    Label every frame of SOURCE and write OUT/labels, overlay, confidence and predictions.jsonl.

    A folder's pictures are routed one by one; with --rate they are a drive, and the router waits
    for its dwell times. Exit code 1: some frames could not be read or have no mask.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Image, folder of images, video, or bag."""
    out: Path
    """Folder to write; files of the same names are replaced."""
    topic: str | None = None
    """Image topic of a bag; without it the only one there is."""
    rate: float | None = None
    """Frames a second of a folder (makes it a sequence), or of a video instead of its own."""


def predict(options: PredictOptions) -> int:
    from nightseg_ros.data.pictures import write_picture
    from nightseg_ros.data.source import open_source
    from nightseg_ros.perception.frame import FrameError
    from nightseg_ros.perception.pipeline import Pipeline, WithheldError
    from nightseg_ros.perception.result import Want

    config = options.pipeline_config()
    source = open_source(options.source, options.topic, rate=options.rate)
    if options.rate is not None and source.kind in ('bag', 'image'):
        raise ConfigError(f"--rate is of folders and videos; '{options.source}' is none")
    for name in (*OUTPUTS, LIST):
        check_output(
            options.out / name, 'a result', _is_prediction, folder=name != LIST,
            inputs=[options.source],
        )  # fmt: skip
    want = Want(labels=True, confidence=True, overlay=True)
    broken = 0
    routes: Counter[str] = Counter()
    with Progress('loading the networks', source.count) as progress:
        progress.note(source.note)
        pipeline = Pipeline.load(config, log=progress.note)
        for folder in OUTPUTS:
            (options.out / folder).mkdir(parents=True, exist_ok=True)
        listed = options.out / LIST
        # beside masks that are not all there, and what tells that they are ours
        unfinished = options.out / UNFINISHED
        with locked(options.out), unfinished.open('w', encoding='utf-8') as lines:
            listed.unlink(missing_ok=True)
            for number, (stem, frame) in enumerate(source):
                files = {
                    name: options.out / name / f'{stem}{suffix}'
                    for name, suffix in OUTPUTS.items()
                }
                try:
                    if isinstance(frame, FrameError):
                        raise frame
                    if not source.sequence:
                        pipeline.reset(reason='a picture on its own')
                    [result] = pipeline.process([frame], want)
                except (FrameError, WithheldError) as error:
                    broken += 1
                    progress.problem(f'skipped: {error}')
                    # a mask of an earlier run must not pass for this frame's
                    for file in files.values():
                        file.unlink(missing_ok=True)
                    continue
                for name, file in files.items():
                    write_picture(file, getattr(result, name))
                lines.write(json.dumps(_record(stem, result)) + '\n')
                routes[result.decision.route] += 1
                progress.show(number + 1, text=f'{stem} {result.decision.route}')
            unfinished.replace(listed)
    taken = ', '.join(f'{route} {count}' for route, count in routes.most_common()) or 'none'
    print(f"{sum(routes.values())} frames labelled in '{options.out}'; routes: {taken}")
    return tell_problems('predict', broken, 'frames could not be read or have no mask')


def _is_prediction(path: Path) -> bool:
    """Recognise results by the list beside them, which may be unfinished, or empty."""
    try:
        lines = path.with_name(LIST).read_text(encoding='utf-8').splitlines()
        return all('route' in json.loads(line) for line in lines[:1])
    except (OSError, ValueError, TypeError):
        return path.with_name(UNFINISHED).is_file()


def _record(stem: str, result: Result) -> dict[str, Any]:
    """
    Return one line of predictions.jsonl; ``stamp`` is in nanoseconds, ``ms`` by stage.

    ``score`` and ``reliability``, 0 to 1, are None where they are not known.
    """
    from nightseg_ros.evaluation.metrics import number

    return {
        'frame': stem,
        'stamp': result.frame.stamp_ns,
        'score': number(result.illumination.score),
        'state': result.decision.state,
        'route': result.decision.route,
        'reason': result.decision.reason,
        'reliability': number(result.reliability),
        'ms': {stage: round(value, 2) for stage, value in result.ms.items()},
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslateOptions:
    """
    Translate every frame of SOURCE into OUT/images, with OUT/contact_sheet.jpg.

    Look at the sheet: no figure shows an invented lamp. Exit code 1: some frames could not be
    read.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Image, folder of images, video, or bag."""
    weights: str
    """Generator: a file, or the name of a shipped one."""
    out: Path
    """Folder to write; files of the same names are replaced."""
    style: str = ''
    """Camera whose light is wanted, for generators that know several; '' is any."""
    long_side: int = 0
    """Long side of the generator's input in pixels; 0: what it was trained at."""
    topic: str | None = None
    """Image topic of a bag; without it the only one there is."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where the generator runs."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino'] = 'auto'
    """What runs it."""


def translate(options: TranslateOptions) -> int:
    if options.long_side and not 64 <= options.long_side <= 4096:
        raise ConfigError(f'--long-side is 0 or 64 to 4096 pixels, got {options.long_side}')

    from nightseg_ros.data.pictures import contact_sheet, write_picture
    from nightseg_ros.data.source import open_source
    from nightseg_ros.perception.frame import FrameError
    from nightseg_ros.perception.pipeline import load_part
    from nightseg_ros.runtime.backends import open_backend
    from nightseg_ros.runtime.pixels import fit
    from nightseg_ros.weights import load_weights, with_style

    source = open_source(options.source, options.topic)
    weights = with_style(load_weights(options.weights), options.style)
    long_side = options.long_side or weights.metadata.long_side
    images, sheet = options.out / 'images', options.out / 'contact_sheet.jpg'
    for path in (images, sheet):
        # the first frame writes the sheet, which marks the folder as a translation
        check_output(
            path, 'a result', lambda _: images.is_dir() and sheet.is_file(),
            folder=path == images, inputs=[options.source],
        )  # fmt: skip
    tiles: list[tuple[Any, Any, str, tuple[int, int, int]]] = []
    broken = done = 0
    every = max(1, -(-(source.count or TILES) // TILES))
    with Progress('loading the generator', source.count) as progress:
        progress.note(source.note)
        backend = open_backend(options.backend, options.device, weights=[weights])
        translator = load_part(weights, backend, progress.note, 'translate')
        images.mkdir(parents=True, exist_ok=True)
        pixels = backend.pixels
        for number, (stem, frame) in enumerate(source):
            if isinstance(frame, FrameError):
                broken += 1
                progress.problem(f'skipped: {frame}')
                (images / f'{stem}.jpg').unlink(missing_ok=True)
                continue
            size = fit(frame.image.shape[0], frame.image.shape[1], long_side)
            batch = pixels.stack([pixels.shrink(frame.image, frame.order, size)])
            result = pixels.download(pixels.restore(translator.run(batch)[0][0], size))
            if done == 0 or (number % every == 0 and len(tiles) < TILES):
                before = frame.image if frame.order == 'rgb' else frame.image[..., ::-1]
                tiles.append((before, result, stem, (255, 255, 255)))
                write_picture(sheet, contact_sheet(tiles, columns=2, tile_width=400))
            write_picture(images / f'{stem}.jpg', result, quality=95)
            done += 1
            progress.show(number + 1, text=stem)
    print(f"{done} frames translated in '{options.out}'")
    return tell_problems('translate', broken, 'frames could not be read')
