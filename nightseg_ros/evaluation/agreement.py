# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What an exported graph has to be, and what weights say about themselves.

A runtime's graph has to compute what torch computes from the same weights. A model card is what a
weights file says about itself, as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import cv2
from nightseg_ros.config import to_mapping
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.metrics import Image
from nightseg_ros.evaluation.sources import in_rgb
from nightseg_ros.perception.frame import Frame
from nightseg_ros.runtime.backend import Backend, ON_CPU
from nightseg_ros.runtime.backends import available_backends, open_backend, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
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
    reference: str = 'torch',
) -> dict[str, float]:
    """
    Return the share of pixels, 0 to 1, on which each runtime agrees with the ``reference``.

    Those that are not installed are left out. ``images`` are uint8 [H, W, 3] RGB of any size.
    Labels agree when they are equal, translated pixels within ``TOLERANCE``. The graph that a
    runtime builds stays in the cache, so that the first frame in the node waits for none.
    """
    first = open_backend(reference, 'cpu')
    batches = []
    for image in images:
        size = fit(image.shape[0], image.shape[1], weights.metadata.long_side)
        batches.append(first.pixels.stack([first.pixels.shrink(image, 'rgb', size)]))
    run = first.load(weights, log)
    wanted = [run(batch)[0].astype(np.int16) for batch in batches]
    shares = {}
    present = available_backends()
    for name in filter(present.get, backends):
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
    """Return up to ``count`` uint8 RGB frames, spread over a source; ``DataError`` for none."""
    frames = open_source(source)
    every = max(1, (frames.count or count) // count)
    spread = islice(frames, 0, None, every)
    readable = (in_rgb(frame) for _, frame in spread if isinstance(frame, Frame))
    images = list(islice(readable, count))
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


def model_card(weights: Weights, agreement: Mapping[str, float] | None = None) -> str:
    """Return the card of ``weights``: its metadata, and the shares ``agreement`` by runtime."""
    about = to_mapping(weights.metadata)
    if weights.metadata.taxonomy is not None:
        names = Taxonomy.from_dict(weights.metadata.taxonomy).classes
        about['taxonomy'] = {**dict(enumerate(names)), UNLABELLED: 'unlabelled'}
    tensors = network_tensors(weights.tensors)
    about['parameters'] = sum(t.numel() for n, t in tensors.items() if 'running_' not in n)
    about['sha256'] = weights.sha256
    if agreement:
        about['agrees_with_torch'] = {name: round(share, 6) for name, share in agreement.items()}
    # the graph takes uint8 and normalises it itself
    hidden = ('mean', 'std')
    known = {k: v for k, v in about.items() if k not in hidden and v not in ('', {}, None)}
    text = yaml.safe_dump(known, default_flow_style=None, sort_keys=False, allow_unicode=True)
    return f'# {weights.path.stem}\n\n```yaml\n{text}```\n'
