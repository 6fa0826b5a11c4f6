# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What an exported graph has to be, and what weights say about themselves.

A runtime's graph has to compute what torch computes from the same weights. A model card is what a
weights file says about itself, as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.metrics import Image
from nightseg_ros.evaluation.sources import in_rgb
from nightseg_ros.perception.frame import Frame
from nightseg_ros.runtime.backend import Backend, ON_CPU
from nightseg_ros.runtime.backends import available_backends, open_backend, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import network_tensors, Weights
import numpy as np
import yaml

#: The runtimes that have to compute what torch does.
OTHERS = tuple(name for name in ON_CPU if name != 'torch')
#: Steps of 255 by which a translated pixel may differ and still count as the same.
TOLERANCE = 2

# -- exported graphs -------------------------------------------------------------------------


def agreement(
    weights: Weights,
    images: Sequence[Image],
    log: Callable[[str], None] = print,
    backends: Sequence[str] = OTHERS,
) -> dict[str, float]:
    """
    Return the share of pixels, 0 to 1, on which each of the other runtimes agrees with torch.

    Those that are not installed are left out. ``images`` are uint8 [H, W, 3] RGB of any size.
    Labels agree when they are equal, translated pixels within ``TOLERANCE``. The graph that a
    runtime builds stays in the cache, so that the first frame in the node waits for none.
    """
    reference = open_backend('torch', 'cpu')
    batches = []
    for image in images:
        size = fit(image.shape[0], image.shape[1], weights.metadata.long_side)
        batches.append(reference.pixels.stack([reference.pixels.shrink(image, 'rgb', size)]))
    run = reference.load(weights, log)
    wanted = [run(batch)[0].astype(np.int16) for batch in batches]
    shares = {}
    present = available_backends()
    for name in backends:
        if present.get(name):
            if name == 'openvino-bf16':  # simulated where the CPU has none
                backend: Backend = OpenVINOBackend(bfloat16=True, simulated=True)
            else:
                backend = open_backend(name, 'cpu')
            run = backend.load(weights, log)
            gaps = [np.abs(run(batch)[0] - truth) for batch, truth in zip(batches, wanted)]
            # labels are planes, pictures have a colour axis
            same = [(gap <= (TOLERANCE if gap.ndim == 4 else 0)).ravel() for gap in gaps]
            shares[name] = float(np.concatenate(same).mean())
    return shares


def source_images(source: Path, count: int) -> list[Image]:
    """
    Return up to ``count`` frames, uint8 [H, W, 3] RGB, spread evenly where there is a number.

    ``DataError`` where an image, folder, video or bag has none.
    """
    frames = open_source(source)
    every = max(1, (frames.count or count) // count)
    images: list[Image] = []
    for index, (_, frame) in enumerate(frames):
        if index % every == 0 and isinstance(frame, Frame):
            images.append(in_rgb(frame))
        if len(images) == count:
            break
    if not images:
        raise DataError(f"'{source}' has no frame that can be read")
    return images


def made_up_images(long_side: int, count: int) -> Iterator[Image]:
    """Yield uint8 RGB pictures of soft, coloured shapes with noise, where no frames are given."""
    rng = np.random.default_rng(0)
    size = (long_side, max(32, long_side * 9 // 16))
    for _ in range(count):
        coarse = rng.integers(0, 256, (6, 10, 3)).astype(np.uint8)
        soft = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noise = rng.integers(-12, 13, soft.shape, np.int16)
        yield np.clip(soft + noise, 0, 255).astype(np.uint8)


# -- model cards -----------------------------------------------------------------------------

USES = {
    'segment': 'labels every pixel of a camera frame',
    'translate': 'turns a night frame into a day frame before it is labelled',
    'illumination': 'tells day, dusk, night and glare apart',
}


def model_card(weights: Weights, agreement: Mapping[str, float] | None = None) -> str:
    """
    Return the card of ``weights``; ``agreement`` are shares by runtime, as ``agreement`` gives.

    Nothing in it is made up: what the metadata does not say is said to be missing.
    """
    metadata = weights.metadata
    tensors = network_tensors(weights.tensors)
    count = sum(tensor.numel() for name, tensor in tensors.items() if 'running_' not in name)
    rows = {
        'Task': f'{metadata.task}: {USES[metadata.task]}',
        'Network': f'`{metadata.network}` {metadata.arch or ""}'.strip(),
        'Parameters': f'{count / 1e6:.2f} M',
        'Input': f'RGB, long side {metadata.long_side} pixels',
        'Trained on': metadata.data or 'not stated',
        'Synthetic night': f'{metadata.ratio:.0%} of the training samples',
        'Licence': metadata.license or 'not stated',
        'Code': f'commit {metadata.commit}' if metadata.commit else 'not stated',
        'SHA-256': f'`{weights.sha256}`',
    }
    lines = [f'# {weights.path.stem}', '', '| | |', '|---|---|']
    lines += [f'| {name} | {_cell(value)} |' for name, value in rows.items()]
    if metadata.taxonomy is not None:
        taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        ids = ', '.join(f'{index} {name}' for index, name in enumerate(taxonomy.classes))
        lines += ['', f'Labels (`{taxonomy.name}`): {ids}; 255 is unlabelled.']
    lines += ['', '## Scores', '', *_scores(metadata.metrics)]
    if agreement:
        lines += ['', '## Exported graph', '']
        lines += [
            f'- {k}: {v:.4%} of the pixels as torch gives them' for k, v in agreement.items()
        ]
    lines += ['', '## Training', '']
    if metadata.training:
        settings = yaml.safe_dump(dict(metadata.training), default_flow_style=None).strip()
        lines += ['```yaml', settings, '```']
    else:
        lines += ['Not stated.']
    return '\n'.join(lines) + '\n'


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """Return a table: a row for each data set, a column for each figure."""
    runs = {name: run for name, run in metrics.items() if isinstance(run, Mapping)}
    if not runs:
        return ['None are stored in this file.']
    columns = list(dict.fromkeys(key for run in runs.values() for key in run))
    lines = [f'| data set | {" | ".join(columns)} |', f'|---{"|---" * len(columns)}|']
    for name, run in runs.items():
        lines.append(f'| {" | ".join([_cell(name), *(_cell(run.get(key)) for key in columns)])} |')
    others = [f'{key}: {value}' for key, value in metrics.items() if key not in runs]
    return [*lines, '', *others] if others else lines


def _cell(value: Any) -> str:
    if value is None:
        return '–'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_cell, value))}]'
    if isinstance(value, float):
        return f'{value:.3f}'
    return str(value).replace('|', '\\|').replace('\n', ' ')
