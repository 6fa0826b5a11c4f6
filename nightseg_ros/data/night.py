# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Night from day: a labelled day image relit by a physical model of light and camera.

The image is taken to linear light; the day sky is lifted off by a soft matte; what is left is
lit again by the town's diffuse light, street lamps, head lamps, windows and traffic on a rough
3-D guess of the scene; a night sky goes behind it; a camera with auto-exposure, halos, tone
curve, blur and noise looks at the result. Labels are read, never changed.
"""

from __future__ import annotations

import cv2
from nightseg_ros.data import night_lights as lights
from nightseg_ros.data import night_scene, photometric
from nightseg_ros.data.night_presets import (
    CameraRanges,
    count,
    LightRanges,
    log_uniform,
    NightConfig,
    uniform,
)
from nightseg_ros.data.night_scene import Array, Bytes, coarse_mean, Role, Scene
from nightseg_ros.taxonomy import CAMVID11, Taxonomy
import numpy as np

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
#: Linear light of each sRGB level (IEC 61966-2-1).
_LINEAR = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255.0],
    np.float32,
)
#: Largest radiance that the tone table holds; no preset's camera clips above it.
_CEILING = 6.0


def synthesize_night(
    image: Bytes,
    labels: Bytes,
    rng: np.random.Generator,
    config: NightConfig | None = None,
    *,
    taxonomy: Taxonomy = CAMVID11,
) -> Bytes:
    """
    Return a night version uint8 [H, W, 3] RGB of a labelled day image of any size.

    ``image`` is uint8 [H, W, 3] RGB, ``labels`` uint8 [H, W] ids of ``taxonomy`` with 255 for
    void; neither is changed. The same generator state gives the same night.
    """
    light_ranges, camera_ranges = (config or NightConfig()).draw(rng)
    scene = night_scene.read_scene(labels, night_scene.role_table(taxonomy), rng)
    linear: Array = cv2.LUT(image, _LINEAR)
    alpha, before = night_scene.split_sky(linear, scene)
    alpha, before = _grow_leaves(alpha, before, scene, uniform(rng, light_ranges.leaves), rng)
    radiance, shine = _relight(before, alpha, scene, light_ranges, rng)
    return _photograph(radiance, shine, scene, light_ranges, camera_ranges, rng)


def _relight(
    before: Array, alpha: Array, scene: Scene, ranges: LightRanges, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the radiance of scene and sky, and that of the lamps, float32 [H, W, 3] each."""
    height, width = alpha.shape
    luma = cv2.transform(before, _LUMA[None, :])
    small = coarse_mean(luma, scene)
    solid = 1.0 - coarse_mean(alpha, scene)
    # the daylight on a surface: the mean of its surroundings without the sky
    day = cv2.blur(small, (25, 25)) / np.maximum(cv2.blur(solid, (25, 25)), 0.05)
    flat = (0.12 / np.clip(day, 0.01, 1.0)) ** uniform(rng, ranges.flatten)

    lamps = lights.place_lamps(scene, ranges, rng)
    light = lights.lamp_light(scene, lamps)
    light += lights.head_light(scene, uniform(rng, ranges.head_lamps), rng)
    ambient = log_uniform(rng, ranges.ambient)
    tint = lights.lamp_color(float(rng.uniform(2200.0, 8000.0)))
    light += ambient * tint * _clouds(scene.coarse.shape, 0.35, rng)[..., None]
    light *= np.clip(flat, 0.2, 6.0)[..., None]

    shares = np.exp(rng.normal(0.0, uniform(rng, ranges.variety), len(Role))).astype(np.float32)
    shares[[Role.ROAD, Role.PAVEMENT]] *= log_uniform(rng, ranges.ground)
    shares[Role.TREE] = log_uniform(rng, ranges.tree)
    shares[Role.SIGN] *= log_uniform(rng, (0.7, 5.0))
    share = cv2.GaussianBlur(shares[scene.roles], (3, 3), 0)
    full = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(full, before, dst=full)
    radiance: Array = cv2.multiply(full, cv2.merge((share,) * 3), dst=full)

    # the sky is measured against what stands before it
    lit = coarse_mean(radiance, scene) @ _LUMA
    ground_level = float(np.median(lit[solid > 0.7])) if (solid > 0.7).any() else 0.02
    level = max(ground_level, 1e-4) * log_uniform(rng, ranges.sky)
    if bool((alpha > 0.0).any()):
        sky = _night_sky(scene, level, ranges, rng)
        full_sky = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
        matte = cv2.merge((alpha, alpha, alpha))
        cv2.add(radiance, cv2.multiply(full_sky, matte, dst=matte), dst=radiance)

    shine = np.zeros((height, width, 3), np.float32)
    lights.draw_windows(shine, scene, luma, uniform(rng, ranges.windows), rng)
    lights.draw_lamps(shine, scene, lamps, rng)
    lights.draw_glints(shine, scene, count(rng, ranges.glints), rng)
    lights.draw_traffic(shine, scene, uniform(rng, ranges.traffic), rng)
    lights.draw_signals(shine, scene, uniform(rng, ranges.signals), rng)
    return radiance, shine


def _grow_leaves(
    alpha: Array, before: Array, scene: Scene, share: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """
    Close gaps in bare crowns with leaves, for a network that must know both seasons.

    Only pixels that are labelled as vegetation change. Returns the sky matte and the light of
    everything before the sky, as ``split_sky`` does.
    """
    tree = (scene.roles == Role.TREE).astype(np.float32)
    if share <= 0.0 or not tree.any():
        return alpha, before
    height, width = alpha.shape
    grain = photometric.texture(height, width, rng)
    # ragged rims: leaves thin out where the label ends
    soft = cv2.GaussianBlur(tree, (0, 0), 1.0 + 2.0 * width / 480.0)
    cover = night_scene.smoothstep(soft + 0.12 * grain, 0.95 - 0.6 * share, 1.1 - 0.6 * share)
    gap = alpha * tree * cover
    color = np.array([1.0, rng.uniform(1.0, 1.6), rng.uniform(0.4, 0.9)], np.float32)
    color *= log_uniform(rng, (0.015, 0.1))
    leaf = gap * np.exp(0.55 * grain)
    grown = cv2.add(before, cv2.multiply(cv2.merge((leaf,) * 3), _scalar(color)))
    return alpha - gap, grown


def _clouds(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> Array:
    """Return float32 [h, w] that wavers slowly about 1."""
    h, w = shape[:2]
    waves = rng.normal(0.0, strength, (int(rng.integers(2, 5)), int(rng.integers(2, 6))))
    field = cv2.resize(waves.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.exp(field), np.float32)


def _night_sky(scene: Scene, level: float, ranges: LightRanges, rng: np.random.Generator) -> Array:
    """Return the radiance of the sky float32 [h, w, 3]: zenith, glow at the horizon, clouds."""
    h, w = scene.coarse.shape
    rows = (np.arange(h, dtype=np.float32)[:, None] + 0.5) * night_scene.STRIDE
    up = np.maximum(scene.horizon - rows, 0.0) / max(scene.focal, 1.0)
    glow = uniform(rng, ranges.sky_glow) * np.exp(-up / float(rng.uniform(0.08, 0.5)))
    blue = uniform(rng, ranges.sky_blue)
    zenith = np.exp(np.array([-blue / 2, rng.normal(0.0, 0.06), blue / 2])).astype(np.float32)
    town = lights.lamp_color(float(rng.uniform(2300.0, 6500.0))) ** 0.5
    clouds = _clouds((h, w), float(rng.uniform(0.02, 0.25)), rng)
    sky = np.asarray(zenith + glow[..., None] * town, np.float32)
    return sky * clouds[..., None] * level


def _photograph(
    radiance: Array,
    shine: Array,
    scene: Scene,
    light: LightRanges,
    camera: CameraRanges,
    rng: np.random.Generator,
) -> Bytes:
    """Expose, scatter, encode, blur and compress: radiance in, uint8 [H, W, 3] RGB out."""
    height, width = scene.roles.shape
    scale = width / 480.0
    small = coarse_mean(radiance, scene)
    cast, remaining = _balance(small, camera, rng)
    small *= cast

    white = log_uniform(rng, camera.white)
    median = uniform(rng, camera.median)
    black = min(uniform(rng, camera.black), 0.8 * median)
    linear = np.linspace(0.0, 1.0, 4096) ** 2 * _CEILING
    levels = _tone(linear, white, uniform(rng, camera.gamma))
    wanted, veil = np.interp([median / 255.0, black / 255.0], levels, linear)
    gain = float((wanted - veil) / max(float(np.median(small @ _LUMA)), 1e-6))

    # lights shine whatever the exposure: a camera opened wide for the dark only clips them more
    shine_gain = min(1.0, gain) ** 0.3
    sources = coarse_mean(shine, scene) * (cast * shine_gain)
    small *= gain
    mirror = np.zeros_like(small)
    if light.wet[1] > 0.0:
        mirror = _mirror(sources, scene, uniform(rng, light.wet))
        small += mirror
    sources += np.maximum(small - 1.0, 0.0)
    np.minimum(sources, 60.0, out=sources)
    haze = _scatter(sources, log_uniform(rng, camera.halo), camera, rng)
    haze += _veil(veil, remaining, rng)
    haze += mirror
    vignette = _vignette(scene, uniform(rng, camera.vignette))

    image = cv2.multiply(radiance, _scalar(cast * gain), dst=radiance)
    glare = cv2.multiply(shine, _scalar(cast * shine_gain), dst=shine)
    cv2.add(image, glare, dst=image)
    full_haze = cv2.resize(haze, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.add(image, full_haze, dst=image)
    if vignette is not None:
        fall = cv2.resize(vignette, (width, height))
        cv2.multiply(image, cv2.merge((fall, fall, fall)), dst=image)
    result = _encode(image, levels)
    result = photometric.saturate(result, uniform(rng, camera.saturation))
    result = photometric.motion_blur(
        result, uniform(rng, camera.motion) * scale, float(rng.normal(0.0, 0.4))
    )
    result = photometric.blur(result, uniform(rng, camera.blur) * scale)
    result = photometric.add_noise(
        result, uniform(rng, camera.noise), uniform(rng, camera.chroma), rng
    )
    result = photometric.add_blotches(result, uniform(rng, camera.blotches), rng)
    return photometric.jpeg(result, count(rng, camera.jpeg))


def _balance(small: Array, camera: CameraRanges, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return an imperfect white balance float32 [3] at luminance 1, and the cast in it [3]."""
    mean = small.reshape(-1, 3).mean(axis=0) + 1e-6
    gains = (float(mean @ _LUMA) / mean) ** uniform(rng, camera.adapt)
    warmth, green = uniform(rng, camera.warmth), uniform(rng, camera.green)
    remaining = np.exp([warmth / 2, green, -warmth / 2])
    gains = np.clip(gains * remaining, 0.2, 5.0)
    return (gains / float(gains @ _LUMA)).astype(np.float32), remaining.astype(np.float32)


def _scalar(color: Array) -> Array:
    """Return three factors as the four that cv2 takes for a scalar."""
    return np.array([*color, 0.0], np.float64)


def _tone(x: Array, white: float, gamma: float) -> Array:
    """Encode luminance 0 to ``_CEILING`` as 0 to 1: extended Reinhard shoulder, then gamma."""
    shoulder = x * (1.0 + x / white**2) / (1.0 + x)
    return np.asarray(np.clip(shoulder, 0.0, 1.0) ** (1.0 / gamma))


def _encode(image: Array, levels: Array) -> Bytes:
    """Apply the tone table to float32 [H, W, 3]; the square root spends it on the blacks."""
    # nothing is below 0, and min keeps the index inside the table
    np.minimum(image, _CEILING, out=image)
    cv2.sqrt(image, dst=image)
    index = (image * np.float32(4095.0 / _CEILING**0.5)).astype(np.uint16)
    table = np.rint(levels * 255.0).astype(np.uint8)
    return np.asarray(np.take(table, index, mode='clip'))


def _mirror(sources: Array, scene: Scene, strength: float) -> Array:
    """Return the light of sources smeared down the road, float32 [h, w, 3]."""
    h = scene.coarse.shape[0]
    length = max(3, h // 3) | 1
    smear = cv2.blur(np.minimum(sources, 8.0), (3, length))
    shifted = np.zeros_like(smear)
    offset = min(length // 2, h - 1)
    shifted[offset:] = smear[: h - offset]
    return np.asarray(shifted * (strength * scene.ground[..., None]), np.float32)


def _scatter(sources: Array, halo: float, camera: CameraRanges, rng: np.random.Generator) -> Array:
    """Return the halos and streaks of the clipped light, float32 [h, w, 3]."""
    h, w = sources.shape[:2]
    wide = max(w, 16) / 120.0
    near = cv2.GaussianBlur(sources, (0, 0), 0.8 * wide)
    tiny = cv2.resize(near, (-(-w // 4), -(-h // 4)), interpolation=cv2.INTER_AREA)
    middle = cv2.GaussianBlur(tiny, (0, 0), 1.0 * wide)
    far = cv2.GaussianBlur(tiny, (0, 0), 4.0 * wide)
    weights = rng.dirichlet([2.0, 2.0, 2.0])
    spread = cv2.addWeighted(middle, 4.0 * weights[1], far, 8.0 * weights[2], 0.0)
    if rng.random() < uniform(rng, camera.streak):
        spread = spread + _streak(tiny, rng) * float(rng.uniform(1.0, 6.0))
    scattered = cv2.resize(spread, (w, h), interpolation=cv2.INTER_LINEAR)
    return np.asarray((scattered + near * float(2.0 * weights[0])) * np.float32(halo))


def _streak(tiny: Array, rng: np.random.Generator) -> Array:
    """Smear float32 [h, w, 3] along one random direction, by a turned image and a box blur."""
    h, w = tiny.shape[:2]
    angle = float(rng.normal(90.0, 35.0))
    side = int(np.ceil(np.hypot(h, w)))
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1.0)
    turn[:, 2] += (side - w) / 2, (side - h) / 2
    turned = cv2.warpAffine(tiny, turn, (side, side))
    smeared = cv2.blur(turned, (max(3, int(side * rng.uniform(0.15, 0.5))), 1))
    return cv2.warpAffine(smeared, turn, (w, h), flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)


def _veil(level: float, cast: Array, rng: np.random.Generator) -> Array:
    """Return the linear RGB float32 [3] of black: a tinted veil."""
    tint = np.asarray(cast, np.float64) ** float(rng.uniform(0.3, 1.0))
    tint *= np.exp(rng.normal(0.0, 0.1, 3))
    tint /= float(tint @ _LUMA)
    return np.asarray(level * tint, np.float32)


def _vignette(scene: Scene, loss: float) -> Array | None:
    """Return the light left by the lens float32 [h, w], or None for nearly all."""
    if loss < 0.05:
        return None
    h, w = scene.coarse.shape
    dv = np.linspace(-1.0, 1.0, h, dtype=np.float32)[:, None]
    du = np.linspace(-1.0, 1.0, w, dtype=np.float32)[None, :]
    return np.asarray(1.0 - loss * (du**2 + dv**2) / 2.0, np.float32)
