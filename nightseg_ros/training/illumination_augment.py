# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Thumbnails as other cameras, exposures and nights would have seen them: brightness made useless.

Everything a camera or its exposure may change is redrawn: crop, mirror, gain, gamma, white
balance, veil, flare, blur, noise and JPEG. The mean luma in particular is drawn from one range for
day and night.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional


def augment(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    relit: torch.Tensor | None = None,
    jpeg: bool = True,
) -> torch.Tensor:
    """
    Redraw what camera, exposure and viewpoint decide.

    Takes RGB float32 [B, 3, h, w] in 0–1 (stored size), returns RGB float32 [B, 3, 64, 96] with
    whole values 0–255. Light is scaled in linear light (taken as the square) before it is
    clipped. Frames for which ``relit`` (bool [B]) is true are day frames to be turned into
    nights first.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1, 1)), generator=generator)

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
    if relit is not None and relit.any():
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
    images = (images.clamp(0, 1) * 255).round()
    if jpeg:
        images = _jpeg(images, generator, share=0.25)
    return images


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

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1, 1)), generator=generator)

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
    x = torch.rand(count, 1, 1, generator=generator) * 96
    y = torch.rand(count, 1, 1, generator=generator) * 64
    size = 2 + 10 * torch.rand(count, 1, 1, generator=generator)
    peak = 0.3 + 1.7 * torch.rand(count, 1, 1, generator=generator)
    rows = torch.arange(64.0)[None, :, None]
    columns = torch.arange(96.0)[None, None, :]
    square = (columns - x) ** 2 + (rows - y) ** 2
    return (peak / (1 + square / size**2) ** 1.5)[:, None]


def _jpeg(images: torch.Tensor, generator: torch.Generator, *, share: float) -> torch.Tensor:
    """Pass a share of the frames through JPEG at quality 40–95."""
    chosen = torch.rand(len(images), generator=generator) < share
    quality = torch.randint(40, 96, (len(images),), generator=generator)
    for index in torch.nonzero(chosen)[:, 0].tolist():
        pixels = images[index].permute(1, 2, 0).contiguous().numpy().astype(np.uint8)
        coded = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, int(quality[index])])[1]
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32)
        images[index] = torch.from_numpy(decoded).permute(2, 0, 1)
    return images
