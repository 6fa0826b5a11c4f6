# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg translate``: pictures of the other light, and how well they keep the scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nightseg_ros.cli.options import parse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nightseg_ros.evaluation.translation import Translations

#: Pairs of pictures on the contact sheet.
TILES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslateOptions:
    """
    Translate every frame of SOURCE into OUT/images, with OUT/contact_sheet.jpg.

    With --judge OUT/metrics.json tells how much of the scene a frozen segmenter finds again, and
    with --real how near the results are to real pictures of the wanted light. The sheet is to be
    looked at: no figure sees a lamp that is not there.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Image, folder of images, video, or bag."""
    weights: str
    """Generator: a file, or the name of a shipped one."""
    out: Path
    """Folder to write; files of the same names are replaced."""
    style: str = ''
    """Camera whose light is wanted, for generators that know several; '' is any."""
    judge: str = ''
    """Segmenter that looks at the frames and at the results."""
    judge_after: str = ''
    """Another one for the results, such as 'night' after a translation into night."""
    real: tuple[str, ...] = ()
    """Real pictures of the wanted light, ADAPTER:ROOT[:SPLIT], for KID."""
    long_side: int = 0
    """Long side of the generator's input in pixels; 0: what it was trained at."""
    topic: str | None = None
    """Image topic of a bag; without it the only one there is."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where the generator runs."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino'] = 'auto'
    """What runs it."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(TranslateOptions, 'translate', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.config import ConfigError
    from nightseg_ros.data.pictures import write_picture
    from nightseg_ros.data.source import open_source
    from nightseg_ros.evaluation.translation import sheet
    from nightseg_ros.networks.generators import with_style
    from nightseg_ros.outputs import check_output
    from nightseg_ros.perception.frame import FrameError
    from nightseg_ros.perception.pipeline import Translator
    from nightseg_ros.runtime.backends import open_backend
    from nightseg_ros.runtime.pixels import fit
    from nightseg_ros.weights import load_weights

    if (options.real or options.judge_after) and not options.judge:
        raise ConfigError('--real and --judge-after need --judge: the segmenter that looks')
    if options.long_side and not 64 <= options.long_side <= 4096:
        raise ConfigError(f'--long-side is 0 or 64 to 4096 pixels, got {options.long_side}')
    source = open_source(options.source, options.topic)
    check_output(
        options.out / 'images', 'a result', lambda path: path.is_dir(), inputs=[options.source]
    )
    weights = with_style(load_weights(options.weights), options.style)
    long_side = options.long_side or weights.metadata.long_side
    shown: list[tuple[Any, Any, str]] = []
    broken = done = 0
    every = max(1, -(-(source.count or TILES) // TILES))
    with Progress('loading the generator', source.count) as progress:
        backend = open_backend(options.backend, options.device)
        translator = Translator(weights, backend, progress.say)
        judged = _judges(options, long_side)
        (options.out / 'images').mkdir(parents=True, exist_ok=True)
        for number, (stem, frame) in enumerate(source):
            if isinstance(frame, FrameError):
                broken += 1
                progress.say(f'skipped: {frame}')
                (options.out / 'images' / f'{stem}.jpg').unlink(missing_ok=True)
                continue
            pixels = backend.pixels
            size = fit(frame.image.shape[0], frame.image.shape[1], long_side)
            batch = pixels.stack([pixels.shrink(frame.image, frame.order, size)])
            result = pixels.download(pixels.restore(translator(batch)[0], size))
            write_picture(options.out / 'images' / f'{stem}.jpg', result, quality=95)
            before = frame.image if frame.order == 'rgb' else frame.image[..., ::-1]
            if judged is not None:
                judged.add(before, result)
            if number % every == 0 and len(shown) < TILES:
                shown.append((before, result, stem))
            done += 1
            progress.set(number + 1, text=stem)
        if shown:
            write_picture(options.out / 'contact_sheet.jpg', sheet(shown))
        if judged is not None and done:
            progress.set(done, text='judging')
            entry = judged.to_dict(_real(options, judged))
            _write(options, weights.sha256, long_side, entry)
    print(f"{done} frames translated in '{options.out}'")
    return 1 if broken else 0


def _judges(options: TranslateOptions, long_side: int) -> Translations | None:
    if not options.judge:
        return None
    from nightseg_ros.evaluation.translation import Translations
    from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
    from nightseg_ros.weights import load_weights

    before = FrozenSegmenter(load_weights(options.judge))
    after = before
    if options.judge_after and options.judge_after != options.judge:
        after = FrozenSegmenter(load_weights(options.judge_after))
    return Translations(before=before, after=after, long_side=long_side)


def _real(options: TranslateOptions, judged: Translations) -> list[npt.NDArray[np.float64]]:
    """Return the features of the real pictures."""
    from nightseg_ros.data.datasets import open_dataset
    from nightseg_ros.data.sample import read_image
    from nightseg_ros.evaluation.translation import features

    return [
        features(judged.after, read_image(sample.image), judged.long_side)
        for spec in options.real
        for sample in open_dataset(spec)
    ]


def _write(options: TranslateOptions, sha256: str, long_side: int, entry: dict[str, Any]) -> None:
    from nightseg_ros.files import replace_file

    found = {
        'version': 1,
        'generator': sha256,
        'style': options.style,
        'long_side': long_side,
        'judge': options.judge,
        'judge_after': options.judge_after or options.judge,
        'real': [Path(spec.partition(':')[2]).name for spec in options.real],
        **entry,
    }
    text = json.dumps(found, indent=2) + '\n'
    replace_file(options.out / 'metrics.json', text.encode('utf-8'))
    line = f'agreement {entry["agreement"]:.3f}, of IoU {entry["agreement_miou"]:.3f}'
    if entry['kid'] is not None:
        kid, before = entry['kid'], entry['kid_source']
        line += (
            f'; KID {kid["mean"]:.4f} ± {kid["std"]:.4f} '
            f'(before {before["mean"]:.4f} ± {before["std"]:.4f})'
        )
    print(line)
