# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The generators: CycleGAN's ResNet with its PatchGAN (Zhu et al. 2017), and a fast one.

CycleGAN's can be told the camera: nights differ more between cameras than from day to night, so
that one generator for several cameras needs to know whose night is wanted. The fast one translates
night to day in real time: a bilateral grid of local tone transforms on a Laplacian pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence

from nightseg_ros.networks.segmenters import conv_bn, enlarged
import torch
from torch import nn
from torch.nn import functional as F

#: Keeps the inverse of the last tanh finite.
_MAX_TANH = 0.97


class ResnetGenerator(nn.Module):
    """
    Float [B, 3, H, W] in [-1, 1] → the same, H and W multiples of 4.

    The published size is ``ngf`` 64 and 9 blocks: 11.38 M parameters, 98.7 GMAC at 480×272. With
    ``styles``, names of cameras, each has instance norms of its own (Dumoulin et al. 2017), and
    'any' has one more, for a camera that is not known. With ``residual`` the layers give a change
    of the picture, which keeps the scene from the first step of a training on, and enlarge by
    repeating pixels: transposed convolutions leave a grid where little else changes.
    """

    def __init__(
        self,
        ngf: int = 64,
        blocks: int = 9,
        styles: Sequence[str] = (),
        style: str = '',
        residual: bool = False,
    ) -> None:
        """Build it with random weights; ``style`` is meant where a call names none, '' is any."""
        super().__init__()
        self.residual = residual
        self.styles = tuple(styles)
        self.style = self.index_of(style)
        count = len(self.styles)
        layers = [nn.ReflectionPad2d(3), *_conv(3, ngf, 7, styles=count)]
        for level in (1, 2):
            layers += _conv(ngf * level, ngf * level * 2, 3, stride=2, padding=1, styles=count)
        layers += [ResnetBlock(ngf * 4, count) for _ in range(blocks)]
        for level in (4, 2):
            wide, narrow = ngf * level, ngf * level // 2
            if residual:
                layers += [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1)]
                layers += _conv(wide, narrow, 3, styles=count)
            else:
                layers += [
                    nn.ConvTranspose2d(wide, narrow, 3, 2, 1, output_padding=1),
                    _norm(narrow, count),
                    nn.ReLU(inplace=True),
                ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        """Return the translated image in [-1, 1]; ``style`` is int64 [B] of ``index_of``."""
        y = _run(self.layers, x, self.style if style is None else style)
        if self.residual:
            # atanh, which ONNX exporters do not know
            within = x * _MAX_TANH
            y = y + 0.5 * torch.log((1 + within) / (1 - within))
        return torch.tanh(y)

    def index_of(self, style: str) -> int:
        """Return a camera's number, that of 'any' for ''; ``ValueError`` lists the cameras."""
        if not style:
            return len(self.styles)
        if style not in self.styles:
            known = ', '.join(self.styles) or 'none'
            raise ValueError(f"no style '{style}'; the generator knows: {known}")
        return self.styles.index(style)


class ResnetBlock(nn.Module):
    """Two reflected 3×3 convolutions with instance norm, and a shortcut."""

    def __init__(self, channels: int, styles: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_conv(channels, channels, 3, styles=styles),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels, styles),
        )

    def forward(self, x: torch.Tensor, style: torch.Tensor | int = 0) -> torch.Tensor:
        """Return float of the input's shape."""
        return x + _run(self.layers, x, style)


class StyleNorm(nn.Module):
    """Instance norm with a scale and an offset for each style, and for 'any'."""

    def __init__(self, channels: int, styles: int) -> None:
        """Build it with scale 1 and offset 0."""
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.scale = nn.Parameter(torch.ones(styles + 1, channels))
        self.offset = nn.Parameter(torch.zeros(styles + 1, channels))

    def forward(self, x: torch.Tensor, style: torch.Tensor | int) -> torch.Tensor:
        """Return float of the input's shape; ``style`` is one for all or int64 [B]."""
        scale, offset = self.scale[style], self.offset[style]
        if isinstance(style, int):
            scale, offset = scale[None], offset[None]
        y: torch.Tensor = self.norm(x) * scale[..., None, None] + offset[..., None, None]
        return y


class PatchGAN(nn.Module):
    """
    Discriminator: float [B, channels, H, W] → a realness score for each 70×70 patch.

    Channels beyond the picture's 3 are maps that it is judged with. With ``styles``, a count of
    cameras, it sees the camera's number as one-hot maps, too.
    """

    def __init__(self, ndf: int = 64, styles: int = 0, channels: int = 3) -> None:
        super().__init__()
        self.styles = styles
        layers: list[nn.Module] = [
            nn.Conv2d(channels + styles, ndf, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for level, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(ndf * level, ndf * level * 2, 4, stride, 1),
                nn.InstanceNorm2d(ndf * level * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(ndf * 8, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        """Return float [B, 1, H', W'] scores (least-squares GAN: 1 is real, 0 fake)."""
        if self.styles:
            if style is None:
                raise ValueError('this discriminator wants the number of the camera, int64 [B]')
            one_hot = nn.functional.one_hot(style, self.styles).to(x.dtype)
            maps = one_hot[..., None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, maps], 1)
        y: torch.Tensor = self.layers(x)
        return y


def _run(layers: nn.Sequential, x: torch.Tensor, style: torch.Tensor | int) -> torch.Tensor:
    """Call layers one by one; those that know styles are told."""
    for layer in layers:
        x = layer(x, style) if isinstance(layer, (ResnetBlock, StyleNorm)) else layer(x)
    return x


def _norm(channels: int, styles: int) -> nn.Module:
    return StyleNorm(channels, styles) if styles else nn.InstanceNorm2d(channels)


def _conv(
    channels: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0, styles: int = 0
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, kernel, stride, padding),
        _norm(out, styles),
        nn.ReLU(inplace=True),
    ]


#: Side of a cell of the grid in pixels.
CELL = 8
#: What a cell says of one bin: the gains of luma, band, chroma and detail, and a colour offset.
COEFFICIENTS = 7
_GAINS = 4
#: Without it the first steps of Adam would paint the picture with random colours.
_GRID_SCALE = 0.1
#: Level that the adaptation lifts a picture's mean to, of 1.
TARGET = 0.4
#: Least half-saturation of the adaptation: black is lifted 30-fold at most.
MIN_HALF = 0.03


class FastGenerator(nn.Module):
    """
    Float [B, 3, H, W] in [-1, 1] → the same, about in [-1, 1]; H and W multiples of 32.

    The picture is first adapted to its own level as a photoreceptor does (Naka and Rushton
    1966). A small network looks at it at half size and gives, for each cell of ``CELL`` pixels
    and each of ``bins`` levels of a guide, the gains of four parts of the picture and a colour
    that is added: a bilateral grid (Gharbi et al. 2017), whose bins are blended by hat functions
    of the guide at half size. The parts are smooth luma, smooth chroma, the band between smooth
    and half size, and the finest detail (a 2×2 Haar level of luma): a Laplacian pyramid whose
    gains can stretch contrast where there is some and smooth where there is noise.

    So nothing finer than a cell can be drawn that is not in the picture, and no hue but by
    adding a cell's colour. All work on pixels is 1×1 convolutions with fixed kernels, products,
    averages and one enlargement, which every backend runs fast.
    """

    #: What ``forward`` runs outside of autocast.
    float32_parts = ('guide',)

    def __init__(self, bins: int = 6, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        """Build a generator that begins as the adaptation alone."""
        super().__init__()
        if bins < 2 or len(widths) != 4:
            raise ValueError(
                f'bins are 2 or more, widths those of strides 4, 8, 16, 32; got {bins}, {widths}'
            )
        self.bins = bins
        w4, w8, w16, w32 = widths
        self.stage8 = nn.Sequential(_half(3, w4), _half(w4, w8), Mixer(w8))
        self.stage16 = nn.Sequential(_half(w8, w16), Mixer(w16), Mixer(w16))
        self.stage32 = nn.Sequential(_half(w16, w32), Mixer(w32), Mixer(w32))
        self.image = nn.Conv2d(w32, w32, 1)
        self.height = nn.Conv2d(w32 + 1, w32, 1)
        self.lateral16 = conv_bn(w16, w32)
        self.merge16 = Mixer(w32)
        self.lateral8 = conv_bn(w8, w32)
        self.merge8 = Mixer(w32)
        self.grid = nn.Conv2d(w32, bins * COEFFICIENTS, 1)
        level = nn.Conv2d(8, 1, 1)
        self.guide = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), level)
        self._fix_kernels()
        self._start_as_adaptation(level)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the picture by day; only the grid is computed in a lower precision, if any."""
        with torch.autocast(x.device.type, enabled=False):
            quads = adapt(F.conv2d(x.float(), self.unshuffle, stride=2) * 0.5 + 0.5)
            half = F.conv2d(quads, self.quad_mean)
        grid = self.coefficients(half)
        with torch.autocast(x.device.type, enabled=False):
            return self._apply_grid(grid.float(), quads, half)

    def _apply_grid(
        self, grid: torch.Tensor, quads: torch.Tensor, half: torch.Tensor
    ) -> torch.Tensor:
        """Blend the bins at half size and put the parts of the picture together again."""
        cells = F.interpolate(grid, scale_factor=float(CELL // 2), mode='bilinear')
        luma = half.mean(1, keepdim=True)
        level = (luma + self.guide(half)).clamp(0, 1) * (self.bins - 1)
        hats = torch.relu(1 - F.conv2d(level, self.one_each, self.bin_of).abs())
        chosen = F.conv2d(hats * cells, self.sum_of_bins)
        smooth = F.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)
        chroma = F.avg_pool2d(half - luma, 3, 1, 1, count_include_pad=False)
        parts = torch.cat([smooth, luma - smooth, chroma], 1)
        coarse = F.conv2d(
            F.conv2d(chosen, self.gain_of) * F.conv2d(parts, self.part_of, self.offset_of),
            self.sum_of_parts,
        )
        detail = F.conv2d(quads, self.quad_luma) - F.conv2d(luma, self.four)
        fine = detail * chosen[:, 3:4]
        picture = F.conv2d(torch.cat([coarse, fine], 1), self.join)
        return F.pixel_shuffle(picture, 2) * 2 - 1

    def coefficients(self, half: torch.Tensor) -> torch.Tensor:
        """Return the grid float [B, bins · 7, H / CELL, W / CELL] of a half-size picture."""
        f8 = self.stage8(half)
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        rows = f32.mean(dim=3, keepdim=True)
        # the height in the picture, 0 to 1: cameras on vehicles are level
        steps = torch.ones_like(rows[:, :1]).cumsum(2)
        where = steps / steps.amax(dim=2, keepdim=True)
        y = f32 + self.height(torch.cat([rows, where], 1)) + self.image(rows.mean(2, keepdim=True))
        y = self.merge16(enlarged(y) + self.lateral16(f16))
        y = self.merge8(enlarged(y) + self.lateral8(f8))
        grid: torch.Tensor = self.grid(y * _GRID_SCALE)
        return grid

    def _fix_kernels(self) -> None:
        """
        Set 1×1 kernels that copy, add and reorder channels; see ``_apply_grid``.

        Indexing and slicing would say the same, at several times the cost in OpenVINO.
        """
        three, four = torch.eye(3), torch.full((1, 4), 0.25)
        self.unshuffle = _fixed(torch.eye(12).view(12, 3, 2, 2))
        self.quad_mean = _fixed_1x1(torch.kron(three, four))
        self.quad_luma = _fixed_1x1(torch.eye(4).repeat(1, 3) / 3)
        self.four = _fixed_1x1(torch.ones(4, 1))
        count = self.bins * COEFFICIENTS
        self.one_each = _fixed_1x1(torch.ones(count, 1))
        self.bin_of = _fixed(-(torch.arange(count) // COEFFICIENTS).float())
        self.sum_of_bins = _fixed_1x1(torch.eye(COEFFICIENTS).repeat(1, self.bins))
        # for each colour four products: smooth × gain, band × gain, chroma × gain, 1 × offset;
        # coefficients are the gains of smooth, band, chroma and detail, then three offsets
        gain_of, part_of = torch.zeros(3, 4, COEFFICIENTS), torch.zeros(3, 4, 5)
        gain_of[:, :3, :3], gain_of[:, 3, _GAINS:] = three, three
        part_of[:, 0, 0], part_of[:, 1, 1], part_of[:, 2, 2:] = 1, 1, three
        self.gain_of = _fixed_1x1(gain_of.flatten(0, 1))
        self.part_of = _fixed_1x1(part_of.flatten(0, 1))
        self.offset_of = _fixed(torch.eye(4)[3].repeat(3))
        self.sum_of_parts = _fixed_1x1(torch.kron(three, torch.ones(1, 4)))
        # colour by pixel of a quad: the coarse colour and the fine luma of its place
        coarse, fine = torch.kron(three, torch.ones(4, 1)), torch.eye(4).repeat(3, 1)
        self.join = _fixed_1x1(torch.cat([coarse, fine], 1))

    def _start_as_adaptation(self, level: nn.Conv2d) -> None:
        """Let every bin keep all parts as they are; bins are levels of luma."""
        bias = torch.zeros(self.bins, COEFFICIENTS)
        bias[:, :_GAINS] = 1
        with torch.no_grad():
            self.grid.weight.zero_()
            self.grid.bias.copy_(bias.flatten())  # type: ignore[union-attr]
            level.weight.zero_()
            level.bias.zero_()  # type: ignore[union-attr]


class Mixer(nn.Module):
    """Residual block: depthwise 5×5, then two 1×1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *conv_bn(channels, channels, 5, groups=channels),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.ReLU(inplace=True),
            *conv_bn(2 * channels, channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float of the input's shape."""
        y: torch.Tensor = x + self.layers(x)
        return y


def adapt(x: torch.Tensor) -> torch.Tensor:
    """
    Map values 0 to 1 by v (1 + a) / (v + a), with an ``a`` for each picture of the batch.

    ``a`` takes the picture's own level, the squared mean of the square roots, to ``TARGET`` or as
    near as ``MIN_HALF`` allows; pictures that are brighter already hardly change.
    """
    level = x.clamp(min=0).sqrt().mean((1, 2, 3), keepdim=True).square()
    a = (level * (1 - TARGET) / (TARGET - level).clamp(min=0.02)).clamp(min=MIN_HALF)
    return x * (1 + a) / (x + a)


def _half(channels: int, out: int) -> nn.Sequential:
    return conv_bn(channels, out, 3, stride=2, act=nn.ReLU(inplace=True))


def _fixed(kernel: torch.Tensor) -> nn.Buffer:
    """Return what follows from the shape of the network and is no weight of it."""
    return nn.Buffer(kernel, persistent=False)


def _fixed_1x1(kernel: torch.Tensor) -> nn.Buffer:
    """Return float [out, in] as the kernel of a 1×1 convolution."""
    return _fixed(kernel[..., None, None])
