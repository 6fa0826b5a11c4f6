# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Drives along a rendered street, from day through dusk, night and a tunnel into glare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.simulation.camera import Array, Camera, Canvas
from nightseg_ros.simulation.light import Light, expose
from nightseg_ros.simulation.scene import Scene, Tunnels
from nightseg_ros.simulation.street import Draw, Street

LIGHTS = ('day', 'dusk', 'night', 'tunnel', 'glare')
AMBIENT = {'day': 1.0, 'dusk': 0.5, 'night': 0.08, 'glare': 0.05, 'tunnel': 1.0}
"""Daylight in the open of each light, 1 noon to 0 deep night, logarithmic."""
SCRIPT = (('day', 0.3), ('dusk', 0.17), ('night', 0.23), ('tunnel', 0.12), ('glare', 0.18))
"""The default drive: each light and its share of the time."""
SPEED = 9.0
"""Metres a second."""
EYE = 1.4
"""Metres from the road to the camera."""
Mount = tuple[float, float]
"""Metres by which another camera or sensor is mounted to the right of the camera, and above it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DriveFrame:
    """One rendered frame and everything that is true about it."""

    image: npt.NDArray[np.uint8]
    """[H, W, 3] RGB."""
    labels: npt.NDArray[np.uint8]
    """[H, W] CamVid-11 ids of the surface at each pixel's centre; 255 where there is none."""
    depth: npt.NDArray[np.float32]
    """[H, W] metres along the optical axis, infinite in the sky."""
    stamp_ns: int
    light: str
    """One of ``LIGHTS``."""
    ambient: float
    """Daylight at the camera, 1 noon to 0 deep night, logarithmic; in a tunnel what reaches it."""
    camera: Camera
    """Where the picture was taken from, and its focal length and centre."""


def render(street: Street, position: float, light: str, *, seed: int = 0,
           size: tuple[int, int] = (640, 360), ambient: float | None = None,
           tunnel: bool | None = None, stamp_ns: int = 0) -> DriveFrame:  # fmt: skip
    """
    Render any place of a street in any light.

    ``position`` in metres along the street, ``light`` one of ``LIGHTS`` or 'unlit' (the bare
    surface colours), ``seed`` of traffic, camera and sensor noise, ``size`` (width, height).
    ``ambient`` defaults to the light's own, a little shifted; ``tunnel`` puts the place
    underground (by default where ``light`` is 'tunnel'). ``ValueError`` for anything else.
    """
    _check_size(size)
    if light not in (*LIGHTS, 'unlit'):
        raise ValueError(f'light must be one of {", ".join(LIGHTS)} or unlit, got {light!r}')
    if ambient is None:
        shift = np.random.default_rng([seed, 11]).uniform(-0.08, 0.08)
        ambient = float(np.clip(AMBIENT.get(light, 1.0) + shift, 0, 1))
    tunnel = light == 'tunnel' if tunnel is None else tunnel
    tunnels = ((position - 50.0, position + 130.0),) if tunnel else ()
    time = position / SPEED + seed % 977
    return _frame(street, position, light, ambient, tunnels, seed, time, size, stamp_ns)


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or not all(16 <= side <= 8192 for side in size):
        raise ValueError(f'size must be (width, height) of 16 to 8192 pixels, got {size}')


def _camera(street: Street, position: float, time: float, size: tuple[int, int],
            mount: Mount) -> Camera:  # fmt: skip
    width, height = size
    if not math.isfinite(position):
        raise ValueError(f'position must be finite, got {position}')
    sway = 0.25 * math.sin(0.31 * time) + 0.1 * math.sin(0.83 * time)
    return Camera(width=width, height=height, x=street.lane + sway + mount[0], z=position,
                  eye=EYE + mount[1], pitch=0.004 * math.sin(2.1 * time),
                  yaw=0.02 * math.sin(0.31 * time + 1),
                  bend=street.bend(position + 30))  # fmt: skip


def _frame(street: Street, position: float, light: str, ambient: float, tunnels: Tunnels,
           seed: int, time: float, size: tuple[int, int], stamp_ns: int,
           mount: Mount = (0.0, 0.0)) -> DriveFrame:  # fmt: skip
    camera = _camera(street, position, time, size, mount)
    covered = max((min(position - a, b - position) for a, b in tunnels), default=0.0)
    glaring = light == 'glare'
    lamps = ambient < 0.8 or covered > 0
    canvas = Scene(street, camera, time, lamps, 11.0 if glaring else 2.0, tunnels).canvas
    if light == 'unlit':
        image: Array = canvas.albedo
    else:
        veil = 0.16 if glaring else 0.02
        image = expose(canvas, street, Light(ambient=ambient, veil=veil, seed=seed), tunnels)
    local = max(0.1, ambient * math.exp(-max(0.0, covered) / 14)) if covered > 0 else ambient
    return DriveFrame(image=image, labels=canvas.label, depth=canvas.depth, stamp_ns=stamp_ns,
                      light=light, ambient=min(ambient, local), camera=camera)  # fmt: skip


class Drive:
    """
    A drive as a sequence of frames in any order: ``len(drive)``, ``drive.frame(i)``, iteration.

    ``split`` 'train' and 'demo' share no layout, texture or seed. The same arguments give the same
    bytes. ``ValueError`` names an argument that does not fit.
    """

    def __init__(self, *, seed: int = 0, size: tuple[int, int] = (640, 360), fps: float = 10.0,
                 seconds: float = 60.0, script: Sequence[tuple[str, float]] = SCRIPT,
                 split: str = 'train', start_ns: int = 0) -> None:  # fmt: skip
        """Build the street; ``script`` lists each light and its share of the time."""
        for name, value in (('fps', fps), ('seconds', seconds)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f'{name} must be positive, got {value}')
        if not script or any(light not in LIGHTS or not share > 0 for light, share in script):
            raise ValueError(
                f'script must list pairs of {", ".join(LIGHTS)} and a positive share, got {script}'
            )
        _check_size(size)
        self.street = Street(seed, split)
        self.seed, self.size, self.fps, self.start_ns = seed, size, fps, start_ns
        self.count = max(1, round(seconds * fps))
        self._lights = [light for light, _ in script]
        ends = np.cumsum([share for _, share in script])
        self._ends = [float(end) for end in ends / ends[-1] * seconds]
        self._start = Draw([seed, 4], split).between(15, 60)
        self._keys: list[tuple[float, float]] = []
        spans = list(zip(self._lights, [0.0, *self._ends[:-1]], self._ends))
        for light, since, until in spans:
            if light != 'tunnel':  # the hour outside stays what it was
                quarter = (until - since) / 4
                self._keys += [(t, AMBIENT[light]) for t in (since + quarter, until - quarter)]
        self._keys = self._keys or [(0.0, AMBIENT['tunnel'])]
        self.tunnels: Tunnels = tuple(
            (self._start + SPEED * since, self._start + SPEED * until + 10)
            for light, since, until in spans if light == 'tunnel'
        )  # fmt: skip

    def __len__(self) -> int:
        """Count the frames."""
        return self.count

    def __iter__(self) -> Iterator[DriveFrame]:
        """Render the frames in order."""
        return (self.frame(i) for i in range(self.count))

    def frame(self, index: int, mount: Mount = (0.0, 0.0)) -> DriveFrame:
        """Render one frame; ``IndexError`` outside 0 to ``len(drive) - 1``."""
        position, time = self._place(index)
        past = [i for i, end in enumerate(self._ends) if time >= end]
        light = self._lights[min(len(past), len(self._lights) - 1)]
        times, levels = zip(*self._keys)
        ambient = float(np.interp(time, times, levels))
        return _frame(self.street, position, light, ambient, self.tunnels,
                      self.seed * 1_000_003 + index, time + self.seed % 977, self.size,
                      self.stamp_ns(index), mount)  # fmt: skip

    def surfaces(self, index: int, size: tuple[int, int], mount: Mount) -> Canvas:
        """Paint what a sensor of ``size`` (width, height) sees at one frame, without light."""
        position, time = self._place(index)
        time += self.seed % 977
        camera = _camera(self.street, position, time, size, mount)
        return Scene(self.street, camera, time, False, 2.0, self.tunnels).canvas

    def stamp_ns(self, index: int) -> int:
        """Return when a frame was taken."""
        return self.start_ns + round(index * 1e9 / self.fps)

    def _place(self, index: int) -> tuple[float, float]:
        """Return metres along the street and seconds since the start."""
        if not 0 <= index < self.count:
            raise IndexError(f'frame {index} of a drive of {self.count}')
        time = index / self.fps
        return self._start + SPEED * time, time
