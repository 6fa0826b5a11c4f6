# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What nights look like, as data: ranges of light and camera, presets and their mixture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LightRanges:
    """Ranges of the lights of a night; the unit of light is the pool below a street lamp."""

    ambient: Range = (0.03, 0.3)
    """Diffuse light of the town on everything (log-uniform)."""
    flatten: Range = (0.3, 0.9)
    """Share of the daylight's sun and shade that is removed first."""
    sky: Range = (0.05, 0.6)
    """Luminance of the sky over the median luminance of all that stands before it (log)."""
    sky_glow: Range = (0.0, 1.5)
    """Extra luminance of the sky at the horizon, over that of the zenith."""
    sky_blue: Range = (-0.25, 0.35)
    """Natural log of the sky's blue over red, before the camera's cast."""
    lamps: tuple[int, int] = (2, 9)
    """Number of street lamps, ends included."""
    lamp_power: Range = (0.5, 2.0)
    """Strength of the street lamps (log-uniform)."""
    lamp_kelvin: Range = (2000.0, 6000.0)
    """Colour temperature of the lamps; 2000 is sodium, 4000 and more is white LED."""
    head_lamps: Range = (0.0, 1.5)
    """Strength of the vehicle's own head lamps."""
    windows: Range = (-0.12, 0.22)
    """Share of the windows and shop fronts that are lit; below 0 none."""
    traffic: Range = (0.2, 0.9)
    """Share of the vehicles that drive with their lights on."""
    signals: Range = (0.0, 0.8)
    """Share of the upright signs that shine like a traffic light."""
    glints: tuple[int, int] = (0, 16)
    """Number of small far lights about the horizon, ends included."""
    wet: Range = (0.0, 0.25)
    """Strength of the mirror image of the lights in the road."""
    tree: Range = (0.25, 1.3)
    """Light on vegetation over that on other things (log): silhouettes to lamp-lit crowns."""
    leaves: Range = (-1.2, 1.0)
    """Share of the sky in bare crowns that grows over with leaves; below 0 none."""
    ground: Range = (0.8, 1.8)
    """Light on road and pavement, which face the lamps, over that on other things (log)."""
    variety: Range = (0.1, 0.45)
    """Standard deviation of the natural log of each class's own share of the light."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraRanges:
    """Ranges of the camera that looks into the night, its processing and its windscreen."""

    median: Range = (20.0, 90.0)
    """Median luma of the image (0 to 255) that auto-exposure reaches for."""
    black: Range = (2.0, 20.0)
    """Luma of a black object: haze, stray light in the lens and lifted shadows."""
    gamma: Range = (1.8, 2.6)
    """Exponent of the encoding."""
    white: Range = (1.5, 6.0)
    """Luminance that is clipped; above 1 it gives highlights a soft shoulder (log-uniform)."""
    adapt: Range = (0.3, 0.95)
    """Share of the lamps' colour that the white balance takes away."""
    warmth: Range = (-0.3, 0.6)
    """Remaining cast: natural log of red over blue."""
    green: Range = (-0.08, 0.2)
    """Remaining cast: natural log of green over the mean of red and blue."""
    saturation: Range = (0.6, 1.25)
    """Chroma of the result over that of the light."""
    halo: Range = (0.012, 0.1)
    """Share of the light of lamps that lens and windscreen scatter (log-uniform)."""
    streak: Range = (0.0, 0.4)
    """Probability of streaks through the lamps: a smeared windscreen."""
    vignette: Range = (0.0, 0.35)
    """Loss of light in the corners."""
    blur: Range = (0.2, 1.3)
    """Standard deviation of the blur in pixels at 480 wide."""
    motion: Range = (0.0, 4.0)
    """Length of the motion blur in pixels at 480 wide; below 1.5 none."""
    noise: Range = (1.0, 6.0)
    """Standard deviation of the luma noise, of 255."""
    chroma: Range = (0.5, 4.0)
    """Standard deviation of the blotchy colour noise, of 255."""
    blotches: Range = (0.0, 2.0)
    """Standard deviation of the coarse noise that a denoiser leaves, of 255."""
    jpeg: tuple[int, int] = (45, 96)
    """JPEG quality, ends included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NightPreset:
    """One family of nights: its lights and the camera that sees them."""

    light: LightRanges = field(default_factory=LightRanges)
    camera: CameraRanges = field(default_factory=CameraRanges)


PRESETS = {
    # Lit town, bright image: lifted blacks, flat contrast, blur, warm or olive cast.
    'street': NightPreset(
        light=LightRanges(
            ambient=(0.05, 0.4), sky=(0.03, 0.5), lamps=(3, 11), lamp_power=(0.5, 3.0),
            lamp_kelvin=(2000.0, 5500.0), head_lamps=(0.0, 1.2), windows=(-0.08, 0.25),
            traffic=(0.4, 1.0), glints=(4, 28), tree=(0.15, 1.0), ground=(0.8, 2.2),
            variety=(0.15, 0.55),
        ),
        camera=CameraRanges(
            median=(62.0, 145.0), black=(28.0, 80.0), gamma=(1.8, 2.7), white=(1.2, 4.0),
            warmth=(-0.4, 0.75), green=(0.0, 0.26), saturation=(0.9, 1.9), halo=(0.03, 0.2),
            streak=(0.1, 0.5), blur=(0.4, 1.8), noise=(0.3, 3.5), chroma=(0.5, 6.0),
            blotches=(0.5, 5.0),
        ),
    ),
    # Park or campus with few lamps: green-black image, trees lit from below or black.
    'dark': NightPreset(
        light=LightRanges(
            ambient=(0.003, 0.06), flatten=(0.1, 0.7), sky=(0.01, 0.4), sky_glow=(0.0, 0.8),
            lamps=(1, 7), lamp_power=(0.8, 6.0), lamp_kelvin=(3000.0, 6500.0),
            head_lamps=(0.0, 2.0), windows=(-0.15, 0.25), traffic=(0.1, 0.7), glints=(0, 14),
            tree=(0.08, 1.6), ground=(1.0, 5.0), variety=(0.2, 0.75),
        ),
        camera=CameraRanges(
            median=(6.0, 32.0), black=(0.5, 4.0), gamma=(1.6, 2.4), white=(1.1, 4.0),
            adapt=(0.5, 1.0), warmth=(-0.1, 0.5), green=(0.1, 0.7), saturation=(0.9, 1.7),
            halo=(0.008, 0.06), streak=(0.0, 0.15), blur=(0.2, 1.0), noise=(0.3, 3.0),
            chroma=(0.3, 2.5),
        ),
    ),
    # Open road without lamps: a cone of head-lamp light, signs and tail lights in the black.
    'highway': NightPreset(
        light=LightRanges(
            ambient=(0.004, 0.05), sky=(0.02, 0.6), sky_glow=(0.0, 1.0), lamps=(0, 2),
            head_lamps=(1.0, 3.0), windows=(-0.2, 0.1), traffic=(0.7, 1.0), glints=(0, 12),
            tree=(0.4, 1.3),
        ),
        camera=CameraRanges(
            median=(6.0, 50.0), black=(0.0, 10.0), warmth=(-0.2, 0.5), halo=(0.005, 0.06),
        ),
    ),
    # Motorway without any light but the vehicles': the margins are black and without noise.
    'unlit': NightPreset(
        light=LightRanges(
            ambient=(0.0003, 0.006), flatten=(0.2, 0.8), sky=(0.2, 1.0), sky_glow=(0.0, 0.6),
            lamps=(0, 0), head_lamps=(1.5, 3.5), windows=(-0.5, 0.03), traffic=(0.7, 1.0),
            signals=(0.0, 0.2), glints=(0, 10), wet=(0.0, 0.1), tree=(0.4, 1.3),
        ),
        camera=CameraRanges(
            median=(2.2, 9.0), black=(1.5, 4.0), gamma=(1.6, 2.4), adapt=(0.3, 0.9),
            warmth=(-0.1, 0.5), green=(-0.05, 0.08), halo=(0.002, 0.03), streak=(0.0, 0.1),
            blur=(0.2, 1.0), noise=(0.0, 1.2), chroma=(0.0, 0.8), blotches=(0.0, 0.5),
        ),
    ),
    # Residential street: moderate light of every colour and an ordinary dash-cam.
    'suburb': NightPreset(camera=CameraRanges(median=(32.0, 85.0), black=(3.0, 30.0))),
    # The last light: a sky brighter than the ground, blue shade, lamps just switched on.
    'twilight': NightPreset(
        light=LightRanges(
            ambient=(0.5, 3.0), flatten=(0.0, 0.6), sky=(1.5, 12.0), sky_glow=(0.2, 2.5),
            sky_blue=(-0.3, 0.7), lamps=(0, 5), lamp_power=(0.2, 0.8), head_lamps=(0.0, 0.4),
            windows=(-0.15, 0.2), tree=(0.35, 1.0), variety=(0.05, 0.25),
        ),
        camera=CameraRanges(
            median=(28.0, 95.0), black=(2.0, 15.0), warmth=(-0.6, 0.3), green=(-0.05, 0.05),
            noise=(0.8, 3.5), halo=(0.005, 0.04), blur=(0.2, 1.1),
        ),
    ),
    # Rain or mist: wet mirrors, strong halos, low contrast.
    'wet': NightPreset(
        light=LightRanges(
            ambient=(0.06, 0.5), sky=(0.15, 1.0), sky_glow=(0.3, 2.5), lamps=(2, 10),
            wet=(0.3, 1.2), traffic=(0.6, 1.0), glints=(4, 24), windows=(-0.1, 0.25),
        ),
        camera=CameraRanges(
            median=(30.0, 105.0), black=(8.0, 45.0), halo=(0.04, 0.2), streak=(0.2, 0.6),
            blur=(0.5, 2.0), saturation=(0.6, 1.2),
        ),
    ),
}  # fmt: skip
#: Probability that light and camera come from two different draws of the mixture.
CROSSOVER = 0.25
_MIXTURE = {
    'street': 0.32, 'dark': 0.26, 'suburb': 0.2, 'wet': 0.09, 'highway': 0.06, 'twilight': 0.07,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class NightConfig:
    """Which nights to make: a weighted mixture of presets."""

    mixture: dict[str, float] = field(default_factory=lambda: dict(_MIXTURE))
    """Weight of each preset by name; the weights need not add up to 1."""

    def __post_init__(self) -> None:
        for name, weight in self.mixture.items():
            if name not in PRESETS:
                known = ', '.join(sorted(PRESETS))
                raise ValueError(f"'mixture' names the preset '{name}'; there are {known}")
            if not (np.isfinite(weight) and weight >= 0.0):
                raise ValueError(f"'mixture.{name}' must be a weight of 0 or more, got {weight}")
        if sum(self.mixture.values()) <= 0.0:
            raise ValueError("'mixture' needs at least one preset with a weight above 0")

    def draw(self, rng: np.random.Generator) -> tuple[LightRanges, CameraRanges]:
        """Draw the family of the lights and that of the camera."""
        first = self._draw_one(rng)
        second = self._draw_one(rng) if rng.random() < CROSSOVER else first
        return first.light, second.camera

    def _draw_one(self, rng: np.random.Generator) -> NightPreset:
        weights = np.array([*self.mixture.values()])
        place = rng.choice(len(weights), p=weights / weights.sum())
        return PRESETS[[*self.mixture][place]]


def uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(rng.uniform(*limits))


def log_uniform(rng: np.random.Generator, limits: Range) -> float:
    """Draw a number between two positive limits, equally often in each octave."""
    low, high = np.log(np.maximum(limits, 1e-6))
    return float(np.exp(rng.uniform(low, high)))


def count(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    """Draw a whole number between the limits, ends included."""
    return int(rng.integers(limits[0], limits[1] + 1))
