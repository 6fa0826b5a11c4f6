# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The recipe of the illumination estimator's network: day against night, brightness made useless.

It learns from thumbnails of frames whose time of day is known. Each step draws the two classes
equally, the cameras of a class equally and their frames at random. Then everything that a camera
or its exposure may change is redrawn: crop, mirror, gain, gamma, white balance, veil, flare, blur,
noise and JPEG. The mean luma in particular is drawn from one range for day and night.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import platform
import time
from typing import Annotated

from nightseg_ros.config import Limited, Limits, Natural, Positive, to_mapping
from nightseg_ros.data.photometric import jpeg
from nightseg_ros.data.sample import Bytes, DataError
from nightseg_ros.data.source import open_source
from nightseg_ros.files import user_path
from nightseg_ros.networks.illumination import IlluminationNet
from nightseg_ros.outputs import check_output
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import ground_light, thumbnail
from nightseg_ros.perception.video import VIDEO_SUFFIXES
from nightseg_ros.runtime.backend import Log
from nightseg_ros.training.run import duration
from nightseg_ros.weights import save_weights, WeightsMetadata
import numpy as np
import torch
from torch.nn import functional

RATE, WEIGHT_DECAY = 4e-3, 1e-2
#: Keeps the score away from 0 and 1, where a threshold could not tell anything any more.
LABEL_SMOOTHING = 0.05
#: Share of the night samples that are day frames turned into nights (see ``augment``).
RELIT = 0.35
#: Channels of the network's layers.
WIDTHS = (12, 24, 32, 32)
#: Height and width of the stored thumbnails; crops of at least 0.45 of a side are taken.
STORED_SIZE = (96, 144)
#: Every n-th frame of a video is taken; neighbours teach nothing new.
VIDEO_STRIDE = 10
#: RGB uint8 [N, 96, 144, 3] by camera and light ('day' or 'night').
Thumbnails = dict[tuple[str, str], Bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class IlluminationConfig(Limited):
    """Settings of ``nightseg train illumination``."""

    data: tuple[str, ...]
    """What to learn from: 'day:CAMERA:PATH' or 'night:CAMERA:PATH', where PATH is a folder, a
    video, or a pattern of images."""
    out: str
    """The weights file to write."""
    steps: Positive = 1200
    batch: Annotated[int, Limits(2)] = 32
    seed: Natural = 0
    license: str = 'research, non-commercial'  # noqa: A003
    """What the training data allows; written into the weights."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        list(sources(self.data or ('',)))  # names a wrong entry


def train_illumination(config: IlluminationConfig, log: Log = print) -> Path:
    """Read the data, train, write the weights and return their path."""
    check_output(Path(config.out), 'weights', Path.is_file)
    sets = load_thumbnails(config.data, log)
    for (camera, light), images in sets.items():
        log(f'{camera}: {len(images)} frames by {light}')
    network = fit(sets, config, log)
    cameras = sorted(f'{camera} ({light})' for camera, light in sets)
    settings = to_mapping(config)
    # paths name folders of this machine only, and would change the hash
    del settings['data'], settings['out']
    metadata = WeightsMetadata(
        network='illumination_net', arch={'widths': list(WIDTHS)}, task='illumination',
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), long_side=96,
        data=f'day or night by the name of folder or clip: {", ".join(cameras)}',
        license=config.license, training={**settings, 'machine': platform.machine()},
    )  # fmt: skip
    save_weights(config.out, network.state_dict(), metadata)
    return Path(config.out)


def fit(sets: Thumbnails, config: IlluminationConfig, log: Log = print) -> IlluminationNet:
    """Train on the sets: same sets, config and thread count, same weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = IlluminationNet(widths=WIDTHS)
    sampler = Sampler(sets, config.seed, relit=RELIT)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=config.steps + 1, pct_start=0.15
    )
    started, every = time.monotonic(), max(1, config.steps // 10)
    for step in range(1, config.steps + 1):
        images, labels = sampler.draw(config.batch)
        logits = network(images)
        smooth = labels * (1 - 2 * LABEL_SMOOTHING) + LABEL_SMOOTHING
        loss = functional.binary_cross_entropy_with_logits(logits, smooth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % every == 0:
            right = ((logits > 0).float() == labels).float().mean().item()
            left = (time.monotonic() - started) / step * (config.steps - step)
            log(
                f'step {step}/{config.steps} loss {loss.item():.3f} accuracy of the batch '
                f'{100 * right:.0f} %, {duration(left)} left'
            )
    network.day_ground.fill_(darkest_day_ground(sets, config.seed))
    return network.eval()


def darkest_day_ground(sets: Thumbnails, seed: int) -> float:
    """
    Return ``ground_light`` that 99 % of the day frames of every training camera exceed.

    Frames of a darker road are scored as less than daylight. Only day frames set this limit. Where
    all are of one camera, they are taken as ``augment`` redraws them, in place of other cameras.
    """
    days = [[thumbnail(image) for image in sets[key]] for key in sets if key[1] == 'day']
    if len(days) == 1:
        sampler = Sampler(sets, seed)
        drawn = (sampler.draw(64) for _ in range(32))
        redrawn = (image for images, labels in drawn for image in images[labels == 1])
        days = [[image.byte().permute(1, 2, 0).numpy() for image in redrawn]]
    return min(float(np.percentile([*map(ground_light, day)], 1)) for day in days)


def sources(specs: Sequence[str]) -> Iterator[tuple[str, str, Path]]:
    """Yield camera, light and path of each entry of ``data``; or raise ``ValueError``."""
    for spec in specs:
        light, _, rest = spec.partition(':')
        camera, _, path = rest.partition(':')
        if light not in ('day', 'night') or not camera or not path:
            raise ValueError(f"'data': '{spec}' must be day:CAMERA:PATH or night:CAMERA:PATH")
        yield camera, light, user_path(path)


def load_thumbnails(specs: Sequence[str], log: Log = print) -> Thumbnails:
    """Read what all entries of ``data`` name; ``DataError`` for a path without a frame."""
    sets: dict[tuple[str, str], list[Bytes]] = {}
    for camera, light, path in sources(specs):
        images = sets.setdefault((camera, light), [])
        before = len(images)
        for file in [path] if path.exists() else sorted(path.parent.glob(path.name)):
            stride = VIDEO_STRIDE if file.suffix.lower() in VIDEO_SUFFIXES else 1
            for index, (_, frame) in enumerate(open_source(file)):
                if not isinstance(frame, Frame):
                    log(f'left out: {frame}')
                elif index % stride == 0:
                    images.append(thumbnail(frame.image, frame.order, STORED_SIZE))
        if len(images) == before:
            raise DataError(
                f"source '{path}' of camera '{camera}' has no readable frame; it must be a folder "
                'of JPEG or PNG images, a video, or a pattern that matches images'
            )
    return {key: np.stack(images) for key, images in sets.items()}


class Sampler:
    """Draws augmented batches with equal classes and, within a class, equal cameras."""

    def __init__(self, sets: Thumbnails, seed: int, *, relit: float = 0.0) -> None:
        """Keep sets; ``relit`` of the nights are made of day; ``DataError`` without a class."""
        self._relit = relit
        self._groups = []
        for light in ('night', 'day'):
            self._groups.append([torch.from_numpy(sets[key]) for key in sets if key[1] == light])
            if not self._groups[-1]:
                raise DataError(
                    f"no training source is labelled '{light}'; day and night are both needed"
                )
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return RGB float32 [count, 3, 64, 96] in 0–255 and labels [count], 1 for day."""
        labels = torch.arange(count) % 2
        chosen = []
        relit = (torch.rand(count, generator=self._generator) < self._relit) & (labels == 0)
        for label, day_frame in zip(labels.tolist(), relit.tolist()):
            cameras = self._groups[1 if day_frame else label]
            images = cameras[self._integer(len(cameras))]
            chosen.append(images[self._integer(len(images))])
        images = torch.stack(chosen).permute(0, 3, 1, 2).float() / 255
        return augment(images, self._generator, relit), labels.float()

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._generator))


def augment(images: torch.Tensor, generator: torch.Generator, relit: torch.Tensor) -> torch.Tensor:
    """
    Redraw what camera, exposure and viewpoint decide.

    Takes RGB float32 [B, 3, h, w] in 0–1 (stored size), returns RGB float32 [B, 3, 64, 96] with
    whole values 0–255. Light is scaled in linear light (taken as the square) before it is
    clipped. Frames for which ``relit`` (bool [B]) is true are day frames to be turned into
    nights first.
    """
    count = len(images)
    uniform = partial(_uniform, generator, count)

    def sometimes(share: float) -> torch.Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < share).float()

    # crops of 0.45–1 of each side and a few upside down: no sky, or sky where none should be,
    # so that the layout of bright and dark does not carry the answer either
    scale = uniform(0.45, 1.0, 2)
    shift = (1 - scale) * uniform(-1.0, 1.0, 2)
    flip = 1 - 2 * (torch.rand(count, 2, generator=generator) < torch.tensor([0.5, 0.1])).float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = scale[:, 0] * flip[:, 0]
    theta[:, 1, 1] = scale[:, 1] * flip[:, 1]
    theta[:, :, 2] = shift
    grid = functional.affine_grid(theta, [count, 3, 64, 96], align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode='border', align_corners=False)

    light = images.clamp(0, 1).square()
    if relit.any():
        light[relit] = _relight(light[relit], generator)
    # a smooth field of light: shade at the top, a bright road, a vignette
    coarse = 0.5 * torch.randn(count, 1, 3, 3, generator=generator)
    field = functional.interpolate(coarse, (64, 96), mode='bicubic', align_corners=True)
    light = light * torch.exp(sometimes(0.5) * field)
    # exposure: half of the frames are brought to a mean luma drawn alike for day and night
    wanted = torch.exp(uniform(np.log(8 / 255), np.log(200 / 255))) ** 2
    exposed = (wanted / light.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-5)).clamp(0.02, 60)
    gain = torch.exp(uniform(np.log(0.3), np.log(3.0)))
    light = light * torch.where(sometimes(0.5) > 0, exposed, gain)
    cast = torch.exp(0.25 * torch.randn(count, 3, 1, 1, generator=generator))
    light = light * (cast / cast.mean(dim=1, keepdim=True))
    light = light + sometimes(0.1) * _flare(count, generator)
    images = light.clamp(0, 1) ** (0.5 * torch.exp(uniform(-0.6, 0.5)))
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (uniform(0.3, 1.6) * (1 - sometimes(0.1)))
    tint = 1 - uniform(0.0, 0.5, 3, 1, 1)
    veil = sometimes(0.4) * uniform(0.0, 0.45)
    images = veil * tint + (1 - veil) * images

    blurred = images
    for _ in range(2):
        blurred = functional.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False)
    mix = sometimes(0.4) * uniform(0.3, 1.0)
    images = images + mix * (blurred - images)
    sigma = sometimes(0.5) * uniform(0.0, 0.04)
    images = images + sigma * torch.randn(images.shape, generator=generator)
    return _jpeg((images.clamp(0, 1) * 255).round(), generator)


def _uniform(
    generator: torch.Generator, count: int, low: float, high: float, *shape: int
) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, *(shape or (1, 1, 1)), generator=generator)


#: RGB of lamps in linear light: sodium, warm white, white, mercury, red, green.
_LAMPS = torch.tensor(
    [[1, 0.6, 0.15], [1, 0.85, 0.6], [1, 1, 1], [0.7, 0.9, 1], [1, 0.1, 0.05], [0.1, 1, 0.6]]
)


def _relight(light: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Turn day into a crude street-lit or dark night: float32 [B, 3, 64, 96] in linear light.

    The bright part of the upper two thirds (mostly sky) takes the colour of a night sky, the rest
    is lit by a weak ambient light, a head-lamp pool at the bottom and up to 14 lamps with halos
    and pools of light around them. Three cameras are few nights to learn from; these have the
    views of the day cameras, so that neither view nor camera says which time of day it is.
    """
    count = len(light)
    uniform = partial(_uniform, generator, count)
    rows = torch.linspace(0, 1, 64)[:, None].expand(64, 96)
    columns = torch.linspace(0, 1.5, 96).expand(64, 96)
    level = torch.quantile(light.mean(dim=1).flatten(1), 0.7, dim=1)[:, None, None, None]
    grey = light.mean(dim=1, keepdim=True)
    sky = torch.sigmoid(6 * (grey / level.clamp(min=1e-3) - uniform(0.8, 1.2)))
    sky = sky * torch.sigmoid((uniform(0.4, 0.7) - rows) / 0.05)
    surface = light / level.clamp(min=1e-3)
    surface = surface / (1 + 0.5 * surface)

    lamps = 14
    lit = (torch.arange(lamps) < uniform(1, lamps, 1)).float()
    x, y = uniform(0.0, 1.5, lamps, 1, 1), uniform(0.1, 0.7, lamps, 1, 1)
    square = (columns - x) ** 2 + (rows - y) ** 2
    core = uniform(0.004, 0.03, lamps, 1, 1)
    halo = (1 + square / core**2) ** -uniform(1.1, 2.0, lamps, 1, 1)
    pool = (1 + square / uniform(0.05, 0.3, lamps, 1, 1) ** 2) ** -1.5
    color = _LAMPS[torch.randint(len(_LAMPS), (count, lamps), generator=generator)]
    power = (lit * torch.exp(uniform(-1.0, 2.0, lamps)))[:, :, None] * color
    halos = torch.einsum('bkhw,bkc->bchw', halo, power)
    pools = torch.einsum('bkhw,bkc->bchw', pool, power)

    head = torch.exp(-((columns - 0.75) ** 2) / 0.15 - (1.0 - rows) ** 2 / uniform(0.02, 0.2))
    street = color[:, :1].transpose(1, 2)[..., None]
    ambient = torch.exp(uniform(-5.0, -1.5)) * street
    strength = uniform(0.0, 0.3)
    lit_surface = surface * (ambient + strength * pools + uniform(0.0, 0.5) * head[:, :1])
    glow = torch.exp(uniform(-6.0, -2.0)) * (0.3 + 0.7 * street) * (0.5 + rows)
    return (1 - sky) * lit_surface + sky * glow + uniform(0.2, 1.0) * halos


def _flare(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one white halo per frame, [B, 1, 64, 96] in linear light, 0–2 at its centre."""
    limits = ((0, 96), (0, 64), (2, 12), (0.3, 2))
    x, y, size, peak = (_uniform(generator, count, *pair, 1, 1) for pair in limits)
    rows = torch.arange(64.0)[None, :, None]
    columns = torch.arange(96.0)[None, None, :]
    square = (columns - x) ** 2 + (rows - y) ** 2
    return (peak / (1 + square / size**2) ** 1.5)[:, None]


def _jpeg(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pass a quarter of the frames through JPEG at quality 40–95."""
    chosen = torch.rand(len(images), generator=generator) < 0.25
    quality = torch.randint(40, 96, (len(images),), generator=generator)
    for index in torch.nonzero(chosen)[:, 0].tolist():
        pixels = images[index].permute(1, 2, 0).contiguous().numpy().astype(np.uint8)
        images[index] = torch.from_numpy(jpeg(pixels, int(quality[index]))).permute(2, 0, 1)
    return images
