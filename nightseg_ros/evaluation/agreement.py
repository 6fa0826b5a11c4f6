# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether an exported graph computes what torch computes from the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import open_source
from nightseg_ros.perception.frame import Frame
from nightseg_ros.runtime.backend import ON_CPU
from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.registry import available_backends, open_backend
from nightseg_ros.weights import Weights

Image = npt.NDArray[np.uint8]

#: The runtimes that have to compute what torch does.
OTHERS = tuple(name for name in ON_CPU if name != 'torch')
#: Steps of 255 by which a translated pixel may differ and still count as the same.
TOLERANCE = 2


def agreement(
    weights: Weights,
    images: Sequence[Image],
    say: Callable[[str], None] = print,
    backends: Sequence[str] = OTHERS,
) -> dict[str, float]:
    """
    Return the share of pixels, 0 to 1, on which each of the other runtimes agrees with torch.

    Those that are not installed are left out.

    ``images`` are uint8 [H, W, 3] RGB of any size. Labels agree when they are equal, translated
    pixels within ``TOLERANCE``. The graph that a runtime builds stays in the cache, so that the
    first frame in the node waits for none.
    """
    reference = open_backend('torch', 'cpu')
    long_side = weights.metadata.long_side
    sizes = [fit(image.shape[0], image.shape[1], long_side) for image in images]
    batches = [
        reference.pixels.stack([reference.pixels.shrink(image, 'rgb', size)])
        for image, size in zip(images, sizes)
    ]
    run = reference.load(weights, say)
    wanted = [run(batch)[0] for batch in batches]
    shares = {}
    present = available_backends()
    for name in backends:
        if not present.get(name):
            continue
        run = open_backend(name, 'cpu').load(weights, say)
        same = [_same(run(batch)[0], truth) for batch, truth in zip(batches, wanted)]
        shares[name] = float(np.concatenate(same).mean())
    return shares


def source_images(source: Path, count: int) -> list[Image]:
    """
    Return up to ``count`` frames, uint8 [H, W, 3] RGB, spread evenly where there is a number.

    ``DataError`` where an image, folder, video or bag has none.
    """
    frames = open_source(source)
    every = max(1, (frames.count or count) // count)
    images = []
    for index, (_, frame) in enumerate(frames):
        if index % every == 0 and isinstance(frame, Frame):
            image = frame.image
            if frame.order == 'bgr':
                image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
            images.append(image)
        if len(images) == count:
            break
    if not images:
        raise DataError(f"'{source}' has no frame that can be read")
    return images


def made_up_images(long_side: int, count: int, seed: int = 0) -> Iterator[Image]:
    """Yield uint8 RGB pictures of soft, coloured shapes with noise, where no frames are given."""
    rng = np.random.default_rng(seed)
    size = (long_side, max(32, long_side * 9 // 16))
    for _ in range(count):
        coarse = rng.integers(0, 256, (6, 10, 3)).astype(np.uint8)
        soft = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noise = rng.integers(-12, 13, soft.shape, np.int16)
        yield np.clip(soft + noise, 0, 255).astype(np.uint8)


def _same(got: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    # labels are planes, pictures have a colour axis
    difference = np.abs(got.astype(np.int16) - wanted.astype(np.int16))
    return np.asarray((difference <= (TOLERANCE if got.ndim == 4 else 0)).ravel(), np.bool_)
