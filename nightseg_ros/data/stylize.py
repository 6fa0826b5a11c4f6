# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Cheap stylisation of an image by a reference: Fourier amplitudes, and CIELAB as floats."""

from __future__ import annotations

import cv2
import numpy as np

from nightseg_ros.data.scene import Array, Bytes


def mix_amplitude(
    image: Bytes, reference: Bytes, *, beta: float = 0.01, strength: float = 1.0
) -> Bytes:
    """
    Swap an image's low Fourier amplitudes for a reference's (FDA, Yang and Soatto 2020).

    Both are uint8 [., ., 3] RGB; the reference is resized. ``beta`` (0 to 0.5) is the half side
    of the swapped square as a share of the shorter side; above 0.02 ghosts of the reference
    show. ``strength`` blends the amplitudes from 0 (the image's) to 1 (the reference's).
    """
    _check(image, 'image')
    _check(reference, 'reference')
    if not 0.0 <= beta <= 0.5:
        raise ValueError(f'beta must be 0 to 0.5, got {beta}')
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f'strength must be 0 to 1, got {strength}')
    height, width = image.shape[:2]
    style = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
    reach = int(np.floor(beta * min(height, width)))
    result = np.empty(image.shape, np.float32)
    for channel in range(3):
        spectrum = np.fft.rfft2(image[..., channel].astype(np.float32))
        other = np.fft.rfft2(style[..., channel].astype(np.float32))
        # the half spectrum starts at frequency 0: low rows lie at both of its ends
        top = (slice(0, min(reach + 1, height)), slice(0, reach + 1))
        windows = [top]
        if reach > 0:
            windows.append((slice(max(height - reach, reach + 1), height), slice(0, reach + 1)))
        for window in windows:
            amplitude = np.abs(spectrum[window])
            wanted = amplitude + strength * (np.abs(other[window]) - amplitude)
            spectrum[window] *= wanted / np.maximum(amplitude, 1e-6)
        result[..., channel] = np.fft.irfft2(spectrum, s=(height, width))
    rounded: Bytes = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    return rounded


def rgb_to_lab(image: Bytes) -> Array:
    """Return CIELAB float32 [H, W, 3] of uint8 RGB."""
    return cv2.cvtColor(image.astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)


def lab_to_rgb(lab: Array) -> Bytes:
    """Return uint8 RGB of CIELAB float32 [H, W, 3]."""
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    result: Bytes = np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8)
    return result


def _check(image: Bytes, name: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f'{name} must be uint8 [H, W, 3] RGB and not empty, got {image.dtype} {image.shape}'
        )
