# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Where a point falls in an image: OpenCV's camera models, on whole clouds at once.

The formulas are those of ``cv2.projectPoints`` and ``cv2.fisheye.projectPoints``, in float32 and
on arrays that lie as the processor likes them: OpenCV's own took five times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
import math
from typing import Any

from nightseg_ros.clouds.geometry import CloudError
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

#: Distortion models of sensor_msgs/CameraInfo and the numbers of coefficients that they may have.
DISTORTIONS = {
    '': (0,),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (8,),
    'equidistant': (4,),
}
#: Metres in front of the camera from which on points count.
NEAR = 0.05
#: Beyond this a number of a calibration is no measurement, and single precision overflows.
LARGEST = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What sensor_msgs/CameraInfo says of a camera."""

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    """Row-major 3×3."""
    p: tuple[float, ...] = ()
    """Row-major 3×4, for rectified images."""
    binning: tuple[int, int] = (1, 1)
    """x and y; 0 means 1."""
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)
    """x offset, y offset, width, height; size 0 is the whole image."""


class CameraModel:
    """A camera whose image has ``width`` × ``height`` pixels, with centres at whole numbers."""

    def __init__(
        self, calibration: Calibration, size: tuple[int, int], *, rectified: bool = False
    ) -> None:
        """
        Take an image of ``size`` (height, width), which may be smaller than what was calibrated.

        ``rectified`` takes P and no distortion. ``CloudError`` says what of the calibration cannot
        be used.
        """
        c = calibration
        matrix, stride = (c.p, 4) if rectified else (c.k, 3)
        if len(matrix) < 2 * stride:
            raise CloudError(
                f'camera_info has {len(matrix)} numbers where {3 * stride} are wanted'
            )
        fx, cx, fy, cy = matrix[0], matrix[2], matrix[stride + 1], matrix[stride + 2]
        if not all(abs(number) < LARGEST for number in (fx, fy, cx, cy, *c.d)):
            raise CloudError(
                f'camera_info holds numbers that are not finite, or beyond {LARGEST:g}'
            )
        if not min(fx, fy) > 1e-3:
            raise CloudError(
                f'camera_info has focal lengths {fx:g} and {fy:g}: the camera is not calibrated'
            )
        # drivers do not agree on the frame that this is in
        if rectified and not abs(c.p[3]) + abs(c.p[7]) <= 1e-6 * fx:
            raise CloudError(
                f'P of camera_info has the fourth column {c.p[3]:g}, {c.p[7]:g}, which is that of '
                'the second camera of a stereo pair: take the first one, or, where the images '
                'are rectified by K as well, rectified: false'
            )
        offset_x, offset_y, roi_width, roi_height = c.roi
        binning_x, binning_y = max(c.binning[0], 1), max(c.binning[1], 1)
        width, height = (roi_width or c.width) // binning_x, (roi_height or c.height) // binning_y
        if width < 1 or height < 1 or size[0] < 1 or size[1] < 1:
            raise CloudError(f'camera_info is for {width}×{height} pixels')
        across, down = size[1] / width, size[0] / height
        # but for roundings
        if abs(size[0] * width - size[1] * height) > width + height + sum(size):
            raise CloudError(
                f'camera_info is for {width}×{height} pixels, the labels have '
                f'{size[1]}×{size[0]}: they are of another shape'
            )
        across, down = across / binning_x, down / binning_y
        self.height, self.width = size
        self.fx, self.fy = fx * across, fy * down
        self.cx = (cx - offset_x + 0.5) * across - 0.5
        self.cy = (cy - offset_y + 0.5) * down - 0.5
        self.fisheye = c.distortion_model == 'equidistant' and not rectified
        self._over, self._under, self._tangential = ((), (), ()) if rectified else _factors(c)
        self.distorts = bool(self._over)
        self.reach = self._reach()
        """Tangent of the widest angle from the optical axis that the image shows."""

    def project(self, points: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats, Floats]:
        """
        Return which of float32 [3, N] points of the optical frame fall into the image, and where.

        Gives index [M], u [M], v [M] in pixels and the inverse depth [M], of a lens that distorts
        the inverse range: of a plane these change evenly over the image. Points behind the camera,
        beyond the field in which the distortion can be inverted, and NaN fall nowhere.
        """
        x, y, z = points
        with np.errstate(invalid='ignore', over='ignore'):
            inside = (z > NEAR) & (x * x + y * y <= np.float32(self.reach**2) * (z * z))
        index = np.flatnonzero(inside)
        inverse = np.float32(1) / z.take(index)
        x, y = x.take(index) * inverse, y.take(index) * inverse
        u, v = self.distorted(x, y)
        if self.distorts:
            inverse /= np.sqrt(x * x + y * y + np.float32(1))
        u *= np.float32(self.fx)
        u += np.float32(self.cx)
        v *= np.float32(self.fy)
        v += np.float32(self.cy)
        seen = np.flatnonzero(
            (u >= -0.5) & (u < self.width - 0.5) & (v >= -0.5) & (v < self.height - 0.5)
        )
        return index.take(seen), u.take(seen), v.take(seen), inverse.take(seen)

    def distorted(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return where the lens puts rays (x/z, y/z), in the same unit and precision."""
        if not self.distorts:
            return x, y
        s = x * x
        s += y * y
        scale = self._radial(s)
        p1, p2 = (np.float32(p) for p in self._tangential)
        if not (p1 or p2):
            return x * scale, y * scale
        # 2 p1 x y + p2 (s + 2 x x), with what both parts have in common taken out
        bend = p2 * x
        bend += p1 * y
        bend *= np.float32(2)
        scale += bend
        return x * scale + p2 * s, y * scale + p1 * s

    def _radial(self, s: Array) -> Array:
        """Return how much farther out the lens puts rays of the squared tangent ``s``."""
        if self.fisheye:
            # the angle over the tangent is 1 on the axis
            r = np.sqrt(np.maximum(s, np.float32(1e-12)))
            angle = np.arctan(r)
            scale = _polynomial(self._over, angle * angle)
            scale *= angle
            scale /= r
            return scale
        scale = _polynomial(self._over, s)
        if self._under:
            scale /= _polynomial(self._under, s)
        return scale

    def _reach(self) -> float:
        """Return the tangent of the angle up to which points fall into the image, and once."""
        across = max(self.cx + 0.5, self.width - 0.5 - self.cx) / self.fx
        down = max(self.cy + 0.5, self.height - 0.5 - self.cy) / self.fy
        # a pixel more: rounding must not cut the corner off
        wanted = math.hypot(across, down) + 1 / min(self.fx, self.fy)
        if not self.distorts:
            return wanted
        r = np.tan(np.linspace(0, math.radians(89.9), 16384))
        s = r * r
        with np.errstate(all='ignore'):
            far = r * self._radial(s)
            # where more angle stops to mean farther out in the image
            folds = np.flatnonzero(~(np.diff(far) > 0))
            least = far - 3 * sum(map(abs, self._tangential)) * s
        ends = [*np.flatnonzero(least > wanted)[:1], *folds[:1], len(r) - 1]
        return float(r[min(ends)])


#: The models of the latest calibrations.
camera_model = lru_cache(maxsize=64)(CameraModel)


def _factors(
    calibration: Calibration,
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return k1 k2 k3 (fisheye: to k4), k4 k5 k6 of the denominator, p1 p2; () for none."""
    model, d = calibration.distortion_model, calibration.d
    if not any(d) and model in ('', 'plumb_bob', 'rational_polynomial'):
        return (), (), ()
    if model not in DISTORTIONS:
        known = ', '.join(name for name in DISTORTIONS if name)
        raise CloudError(f"distortion model '{model}' is not known; known ones: {known}")
    if len(d) not in DISTORTIONS[model]:
        raise CloudError(
            f"distortion model '{model}' has {len(d)} coefficients; wanted: "
            f'{" or ".join(map(str, DISTORTIONS[model]))}'
        )
    if model == 'equidistant':
        return d, (), (0.0, 0.0)
    k1, k2, p1, p2, k3, *under = d + (0.0,) * (8 - len(d))
    return (k1, k2, k3), tuple(under) if any(under) else (), (p1, p2)


def _polynomial(factors: Sequence[float], s: Array) -> Array:
    """Return 1 + k1 s + k2 s² + … in the precision of ``s``."""
    *first, last = (np.float32(k) for k in factors)
    total = s * last
    for k in reversed(first):
        total += k
        total *= s
    total += np.float32(1)
    return total


@lru_cache(maxsize=8)
def pixel_rays(model: CameraModel) -> Floats:
    """Return float32 [2, H, W]: x/z and y/z of each pixel, NaN where no ray comes from."""
    v, u = np.mgrid[: model.height, : model.width].astype(np.float64)
    wanted = np.stack([(u.ravel() - model.cx) / model.fx, (v.ravel() - model.cy) / model.fy])
    ray = wanted
    if model.distorts:
        # the radius by a table, then Newton's steps for what is not radial
        radii = np.tan(np.linspace(0, math.atan(model.reach), 4096))
        across, _ = model.distorted(radii, np.zeros_like(radii))
        distance = np.hypot(*wanted)
        radius = np.interp(distance, np.maximum.accumulate(across), radii)
        ray = wanted * (radius / np.maximum(distance, 1e-12))
        tiny = 1e-5
        for _ in range(5):
            here, right, below = (
                np.stack(model.distorted(ray[0] + dx, ray[1] + dy))
                for dx, dy in ((0, 0), (tiny, 0), (0, tiny))
            )
            (xx, yx), (xy, yy) = (right - here) / tiny, (below - here) / tiny
            ex, ey = here - wanted
            with np.errstate(all='ignore'):
                ray = ray - np.stack([yy * ex - xy * ey, xx * ey - yx * ex]) / (xx * yy - xy * yx)
        a, b = model.distorted(ray[0], ray[1])
        off = np.hypot((a - wanted[0]) * model.fx, (b - wanted[1]) * model.fy)
        # what the lens does not bring back to its pixel is no ray
        ray[:, ~(off < 0.1) | (np.hypot(*ray) > model.reach)] = np.nan
    return np.ascontiguousarray(ray.reshape(2, model.height, model.width), np.float32)
