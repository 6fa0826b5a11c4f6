# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Drives along a rendered street, from day through dusk, night and a tunnel into glare.

A drive has cameras, a solid-state LiDAR on the roof and their calibration; it becomes a bag, and
many streets become a data set on disk. The road bends in the camera's own coordinates, so that
only sensors side by side or one above the other see one and the same street.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.storage import Channel
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, Matrix, from_pose
from nightseg_ros.clouds.point_cloud import Cloud, Field
from nightseg_ros.data.sample import DataError
from nightseg_ros.outputs import check_output
from nightseg_ros.perception.frame import Frame
from nightseg_ros.simulation.street import (
    Array,
    Camera,
    Canvas,
    Draw,
    Light,
    Street,
    StreetScene,
    Tunnels,
    expose,
)
from nightseg_ros.taxonomy import CAMVID11

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
    canvas = StreetScene(street, camera, time, lamps, 11.0 if glaring else 2.0, tunnels).canvas
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
        return StreetScene(self.street, camera, time, False, 2.0, self.tunnels).canvas

    def stamp_ns(self, index: int) -> int:
        """Return when a frame was taken."""
        return self.start_ns + round(index * 1e9 / self.fps)

    def _place(self, index: int) -> tuple[float, float]:
        """Return metres along the street and seconds since the start."""
        if not 0 <= index < self.count:
            raise IndexError(f'frame {index} of a drive of {self.count}')
        time = index / self.fps
        return self._start + SPEED * time, time


#: A hand's breadth to the right of the camera and half a metre above it: its shadows differ.
LIDAR_MOUNT: Mount = (0.3, 0.6)
#: Metres up to which a surface sends an echo back.
RANGE = 100.0
_SIZE = (1280, 720)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scan:
    """One sweep; every echo comes from the middle of a surface that the drive has painted."""

    points: npt.NDArray[np.float32]
    """[N, 3] in the LiDAR's body frame: x ahead, y left, z up, in metres."""
    labels: npt.NDArray[np.uint8]
    """[N] the true ids."""
    ring: npt.NDArray[np.uint16]
    """[N] the line of each point, from above."""
    stamp_ns: int

    def cloud(self) -> Cloud:
        """Return it with the fields x, y, z, ring and the true label, ``truth``."""
        layout = np.dtype(
            [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('ring', '<u2'), ('truth', 'u1')]
        )
        records = np.empty(len(self.points), layout)
        records['x'], records['y'], records['z'] = self.points.T
        records['ring'], records['truth'] = self.ring, self.labels
        kinds = {'x': 7, 'y': 7, 'z': 7, 'ring': 4, 'truth': 2}
        offsets = {name: place[1] for name, place in (layout.fields or {}).items()}
        return Cloud(
            fields=tuple(
                Field(name=name, offset=offsets[name], datatype=kind)
                for name, kind in kinds.items()
            ),
            height=1, width=len(records), point_step=layout.itemsize,
            row_step=layout.itemsize * len(records), data=records.view(np.uint8), is_dense=True,
        )  # fmt: skip


def scan(drive: Drive, index: int, *, lines: int = 64, columns: int = 400) -> Scan:
    """Return the echoes of ``lines`` × ``columns`` rays, ±30° wide and from 9° up to 17° down."""
    canvas = drive.surfaces(index, _SIZE, LIDAR_MOUNT)
    camera = canvas.camera
    elevation = np.radians(np.linspace(9, -17, lines))
    azimuth = np.radians(np.linspace(-30, 30, columns))
    # the rays of a spinning mirror: the rows bend outwards in the image
    u = camera.center[0] + camera.focal * np.tan(azimuth)[None]
    v = camera.center[1] - camera.focal * np.tan(elevation)[:, None] / np.cos(azimuth)[None]
    column, row = np.broadcast_arrays(u.astype(int), v.astype(int))
    kept = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    line, _ = np.nonzero(kept)
    row, column = row[kept], column[kept]
    depth = canvas.depth[row, column].astype(np.float64)
    x = (column + 0.5 - camera.center[0]) / camera.focal * depth
    y = (row + 0.5 - camera.center[1]) / camera.focal * depth
    with np.errstate(invalid='ignore'):
        echo = np.sqrt(x * x + y * y + depth * depth) < RANGE
    optical = np.stack([x[echo], y[echo], depth[echo]])
    return Scan(
        points=(BODY_FROM_OPTICAL[:3, :3] @ optical).T.astype(np.float32),
        labels=canvas.label[row[echo], column[echo]],
        ring=line[echo].astype(np.uint16),
        stamp_ns=drive.stamp_ns(index),
    )


def calibration(camera: Camera) -> Calibration:
    """Return what camera_info says of a rendered picture; its pitch moves the centre."""
    cx, cy = (value - 0.5 for value in camera.center)
    k = (camera.focal, 0.0, cx, 0.0, camera.focal, cy, 0.0, 0.0, 1.0)
    return Calibration(
        width=camera.width, height=camera.height, distortion_model='plumb_bob', d=(0.0,) * 5,
        k=k, p=(*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0),
    )  # fmt: skip


def places(mounts: Mapping[str, Mount]) -> list[tuple[str, str, Matrix]]:
    """Return parent, child and parent_from_child of the LiDAR and of cameras by their frames."""
    found = [('base_link', 'lidar', _at(LIDAR_MOUNT))]
    for frame, mount in mounts.items():
        found.append(('base_link', frame, np.asarray(_at(mount) @ BODY_FROM_OPTICAL)))
    return found


def _at(mount: Mount) -> Matrix:
    return from_pose((0.0, -mount[0], mount[1]), (0.0, 0.0, 0.0, 1.0))


#: Share of each light in a data set of the given name.
MIXES: dict[str, dict[str, float]] = {
    'day': {'day': 1.0},
    'night': {'night': 0.4, 'dusk': 0.2, 'tunnel': 0.15, 'glare': 0.15, 'day': 0.1},
    'mixed': {'day': 0.4, 'night': 0.25, 'dusk': 0.15, 'tunnel': 0.1, 'glare': 0.1},
}
_PER_STREET = 8
_STREET_LENGTH = 400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedConfig:
    """What is rendered; the same settings give the same bytes."""

    count: int = 400
    split: Literal['train', 'demo'] = 'train'
    """Layouts, textures and seeds; the two share none."""
    light: Literal['day', 'night', 'mixed'] = 'mixed'
    """A mix of lights by name: 'night' is mostly night, dusk, tunnel and glare, a tenth day."""
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse empty sets and unknown names."""
        if self.count < 1:
            raise ValueError(f"'count' must be at least 1, got {self.count}")
        if self.light not in MIXES:
            raise ValueError(f"'light' must be one of {list(MIXES)}, got '{self.light}'")
        if self.split not in ('train', 'demo'):
            raise ValueError(f"'split' must be 'train' or 'demo', got '{self.split}'")


def write_rendered(
    out: Path,
    config: RenderedConfig,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """
    Render ``out/images/LIGHT_NNNNNN.png`` (RGB) and ``out/labels/`` with the ids beside them.

    ``folder:OUT`` is then a data set, whose ``taxonomy.json`` says what the ids mean. The folder
    appears whole or not at all; ``DataError`` where it exists and ``force`` is not set.
    """
    check_output(out, 'a rendered data set', _is_ours, force=force, error=DataError)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.partial-'))
    try:
        partial.chmod(0o755)
        for folder in ('images', 'labels'):
            (partial / folder).mkdir()
        taxonomy = json.dumps(CAMVID11.to_dict(), indent=1)
        (partial / 'taxonomy.json').write_text(taxonomy + '\n', encoding='utf-8')
        for index in range(config.count):
            _write(partial, config, index)
            progress(index + 1, config.count)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but what ``write_rendered`` writes."""
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_symlink() or not path.is_dir()
    ]
    lights = '|'.join(sorted({light for mix in MIXES.values() for light in mix}))
    known = re.compile(rf'taxonomy\.json|(images|labels)/({lights})_\d{{6}}\.png')
    return 'taxonomy.json' in files and all(known.fullmatch(name) for name in files)


def _write(folder: Path, config: RenderedConfig, index: int) -> None:
    rng = np.random.default_rng([config.seed, index, 29])
    lights = MIXES[config.light]
    light = str(rng.choice(list(lights), p=list(lights.values())))
    street = Street(config.seed * 10_007 + index // _PER_STREET, config.split)
    frame = render(
        street, float(rng.uniform(0, _STREET_LENGTH)), light,
        seed=config.seed * 1_000_003 + index, size=config.size,
    )  # fmt: skip
    name = f'{light}_{index:06d}.png'
    quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    for kind, picture in (
        ('images', cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)),
        ('labels', frame.labels),
    ):
        content = cv2.imencode('.png', picture, quick)[1].tobytes()
        try:
            (folder / kind / name).write_bytes(content)
        except OSError as error:
            raise DataError(
                f"'{folder / kind / name}' cannot be written ({error.strerror}); is the disk full?"
            ) from error


Rendered = tuple[DriveFrame, Scan | None]
IMAGE_TOPIC = '/camera/image_raw'
INFO_TOPIC = '/camera/camera_info'
DEPTH_TOPIC = '/camera/depth/image_raw'
CLOUD_TOPIC = '/lidar/points'
#: Where LiDAR and camera are.
PLACES = places({'camera': (0.0, 0.0)})
TRUTH_TOPIC = '/camera/labels_truth'
#: Stamp of the first frame; any day will do, 0 would mean that there is no stamp.
START_NS = 1_700_000_000_000_000_000
#: Daylight (0–1) from which a frame belongs to the lit part: halfway from day to dusk.
LIT = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveSettings:
    """Which drive is rendered; the same settings give the same frames."""

    seed: int = 0
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    fps: float = 10.0
    seconds: float = 60.0
    split: Literal['train', 'demo'] = 'demo'
    lidar_every: int = 0
    """A LiDAR sweeps at every so many frames; 0 leaves it at home."""
    depth: bool = False
    """Whether the camera measures depth, too."""

    def open(self) -> Drive:
        """Return the drive."""
        return Drive(
            seed=self.seed, size=self.size, fps=self.fps, seconds=self.seconds, split=self.split,
            start_ns=START_NS,
        )  # fmt: skip


def write_drive(
    path: Path,
    settings: DriveSettings,
    *,
    processes: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, bool]:
    """
    Render a drive into a bag and return whether each stamp (ns) belongs to its lit part.

    ``processes`` 0 takes one a CPU; their number changes nothing in the bag.
    """
    count = len(settings.open())
    lit: dict[int, bool] = {}
    with (
        BagWriter(path, force=force) as bag,
        _frames(settings, count, processes or os.cpu_count() or 1) as frames,
    ):
        if settings.lidar_every:
            bag.add_topic(
                Channel(topic='/tf_static', type='tf2_msgs/msg/TFMessage',
                        qos=(reliable_qos(latched=True),))
            )  # fmt: skip
            bag.write_transforms('/tf_static', PLACES, stamp_ns=START_NS)
        for number, (rendered, sweep) in enumerate(frames):
            stamp = rendered.stamp_ns
            frame = Frame(image=rendered.image, stamp_ns=stamp, frame_id='camera')
            bag.write_frame(IMAGE_TOPIC, frame)
            bag.write_labels(TRUTH_TOPIC, rendered.labels, stamp_ns=stamp, frame_id='camera')
            if settings.lidar_every or settings.depth:
                bag.write_calibration(
                    INFO_TOPIC, calibration(rendered.camera), stamp_ns=stamp, frame_id='camera'
                )
            if sweep is not None:
                bag.write_cloud(CLOUD_TOPIC, sweep.cloud(), stamp_ns=stamp, frame_id='lidar')
            if settings.depth:
                bag.write_depth(DEPTH_TOPIC, rendered.depth, stamp_ns=stamp, frame_id='camera')
            lit[stamp] = rendered.ambient >= LIT
            progress(number + 1, count)
    return lit


@contextmanager
def _frames(settings: DriveSettings, count: int, processes: int) -> Iterator[Iterator[Rendered]]:
    processes = min(processes, count)
    if processes == 1:
        drive = settings.open()
        yield (_rendered(drive, settings.lidar_every, index) for index in range(count))
        return
    # a fork would copy the locks of threads that this process may have
    context = multiprocessing.get_context('spawn')
    with context.Pool(processes, _open, (settings,)) as pool:
        yield pool.imap(_render, range(count), chunksize=2)


_drive: Drive | None = None
_lidar_every = 0


def _open(settings: DriveSettings) -> None:
    global _drive, _lidar_every
    import cv2

    cv2.setNumThreads(1)
    _drive, _lidar_every = settings.open(), settings.lidar_every


def _render(index: int) -> Rendered:
    assert _drive is not None
    return _rendered(_drive, _lidar_every, index)


def _rendered(drive: Drive, lidar_every: int, index: int) -> Rendered:
    sweeps = lidar_every and index % lidar_every == 0
    return drive.frame(index), scan(drive, index) if sweeps else None
