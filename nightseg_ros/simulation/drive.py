# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Drives along a rendered street, from day through dusk, night and a tunnel into glare.

A drive has cameras, a solid-state LiDAR on the roof and their calibration; it becomes a bag, and
many streets become a data set on disk. The road bends in the camera's own coordinates, so that
only sensors side by side or one above the other see one and the same street.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
import json
import math
from multiprocessing.pool import Pool
import os
from pathlib import Path
import signal
from typing import TypeVar

from nightseg_ros.bags.storage import Channel
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, from_pose, Matrix
from nightseg_ros.clouds.point_cloud import Cloud, Field
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import DataError
from nightseg_ros.files import process_context
from nightseg_ros.outputs import whole_folder
from nightseg_ros.simulation.canvas import Camera
from nightseg_ros.simulation.scene import expose, StreetScene, Tunnels
from nightseg_ros.simulation.street import Draw, Street
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import numpy.typing as npt

AMBIENT = {'day': 1.0, 'dusk': 0.5, 'night': 0.08, 'tunnel': 1.0, 'glare': 0.05}
"""Daylight in the open of each light, 1 noon to 0 deep night, logarithmic."""
LIGHTS = tuple(AMBIENT)
SCRIPT = (('day', 0.3), ('dusk', 0.17), ('night', 0.23), ('tunnel', 0.12), ('glare', 0.18))
"""A drive: each light and its share of the time."""
SPEED = 9.0
"""Metres a second."""
EYE = 1.4
"""Metres from the road to the camera."""
Mount = tuple[float, float]
"""Metres by which another camera or sensor is mounted to the right of the camera, and above it."""
#: A hand's breadth to the right of the camera and half a metre above it: its shadows differ.
LIDAR_MOUNT: Mount = (0.3, 0.6)
#: Metres up to which a surface sends an echo back.
RANGE = 100.0
#: Stamp of the first frame; any day will do, 0 would mean that there is no stamp.
START_NS = 1_700_000_000_000_000_000
#: Daylight (0-1) from which a frame belongs to the lit part: halfway from day to dusk.
LIT = 0.75
IMAGE_TOPIC = '/camera/image_raw'
INFO_TOPIC = '/camera/camera_info'
TRUTH_TOPIC = '/camera/labels_truth'
CLOUD_TOPIC = '/lidar/points'
T = TypeVar('T')
#: Streets by seed and split, which take longer to build than a frame.
_street = lru_cache(maxsize=2)(Street)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DriveFrame:
    """One rendered frame and everything that is true about it."""

    image: npt.NDArray[np.uint8]
    """[H, W, 3] RGB."""
    labels: npt.NDArray[np.uint8]
    """[H, W] CamVid-11 ids of the surface at each pixel's centre."""
    depth: npt.NDArray[np.float32]
    """[H, W] metres along the optical axis, infinite in the sky."""
    stamp_ns: int
    light: str
    """One of ``LIGHTS``."""
    ambient: float
    """Daylight at the camera, 1 noon to 0 deep night, logarithmic; in a tunnel what reaches it."""
    camera: Camera
    """Where the picture was taken from, and its focal length and centre."""


def render(
    street: Street, position: float, light: str, *, seed: int = 0,
    size: tuple[int, int] = (640, 360),
) -> DriveFrame:  # fmt: skip
    """
    Render any place of a street in any light.

    ``position`` in metres along the street, ``light`` one of ``LIGHTS``, ``seed`` of traffic,
    camera and sensor noise, ``size`` (width, height); ``DataError`` for a size that does not fit.
    """
    shift = np.random.default_rng([seed, 11]).uniform(-0.08, 0.08)
    ambient = float(np.clip(AMBIENT[light] + shift, 0, 1))
    tunnels = ((position - 50.0, position + 130.0),) if light == 'tunnel' else ()
    time = position / SPEED + seed % 977
    camera = _camera(street, position, time, size)
    return _frame(street, camera, time, light, ambient, tunnels, seed, stamp_ns=0)


def _camera(
    street: Street, position: float, time: float, size: tuple[int, int], mount: Mount = (0.0, 0.0)
) -> Camera:
    if not all(16 <= side <= 8192 for side in size):
        raise DataError(f'size must be (width, height) of 16 to 8192 pixels, got {size}')
    sway = 0.25 * math.sin(0.31 * time) + 0.1 * math.sin(0.83 * time)
    return Camera(
        width=size[0], height=size[1], x=street.lane + sway + mount[0], z=position,
        eye=EYE + mount[1], pitch=0.004 * math.sin(2.1 * time),
        yaw=0.02 * math.sin(0.31 * time + 1), bend=street.bend(position + 30),
    )  # fmt: skip


def _frame(
    street: Street, camera: Camera, time: float, light: str, ambient: float, tunnels: Tunnels,
    seed: int, stamp_ns: int,
) -> DriveFrame:  # fmt: skip
    glaring = light == 'glare'
    covered = max((min(camera.z - a, b - camera.z) for a, b in tunnels), default=0.0)
    scene = StreetScene(
        street, camera, time, tunnels, lamps=ambient < 0.8 or covered > 0,
        beam=11.0 if glaring else 2.0,
    )  # fmt: skip
    image = expose(scene, ambient, veil=0.16 if glaring else 0.02, seed=seed)
    if covered > 0:
        ambient = min(ambient, max(0.1, ambient * math.exp(-covered / 14)))
    return DriveFrame(
        image=image, labels=scene.label, depth=scene.depth, stamp_ns=stamp_ns, light=light,
        ambient=ambient, camera=camera,
    )  # fmt: skip


class Drive:
    """
    A drive as frames in any order: ``len(drive)`` and ``drive.frame(i)``.

    Its street is one of the split 'demo', which shares no layout, texture or seed with 'train'.
    The same arguments give the same bytes. ``DataError`` names an argument that does not fit.
    """

    def __init__(
        self, *, seed: int = 0, size: tuple[int, int] = (640, 360), fps: float = 10.0,
        seconds: float = 60.0,
    ) -> None:  # fmt: skip
        """``size`` is (width, height) in pixels; another ``seed`` is another street."""
        for name, value in (('fps', fps), ('seconds', seconds)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(f'{name} must be positive, got {value}')
        if seed < 0:
            raise DataError(f'seed must not be negative, got {seed}')
        self._seed, self._size, self._fps = seed, size, fps
        self._count = max(1, round(seconds * fps))
        ends = np.cumsum([share for _, share in SCRIPT])
        self._ends = [float(end) for end in ends / ends[-1] * seconds]
        self._start = Draw([seed, 4], 'demo').between(15, 60)
        self._keys: list[tuple[float, float]] = []
        self._tunnels: Tunnels = ()
        for (light, _), since, until in zip(SCRIPT, [0.0, *self._ends[:-1]], self._ends):
            if light == 'tunnel':
                begin = self._start + SPEED * since
                self._tunnels += ((begin, self._start + SPEED * until + 10),)
            else:  # the hour outside stays what it was
                quarter = (until - since) / 4
                self._keys += [(t, AMBIENT[light]) for t in (since + quarter, until - quarter)]

    def __len__(self) -> int:
        return self._count

    def frame(self, index: int, mount: Mount = (0.0, 0.0)) -> DriveFrame:
        """Render one of the ``len(drive)`` frames."""
        camera, time = self._view(index, self._size, mount)
        elapsed = index / self._fps
        past = sum(elapsed >= end for end in self._ends)
        light, _ = SCRIPT[min(past, len(SCRIPT) - 1)]
        times, levels = zip(*self._keys)
        ambient = float(np.interp(elapsed, times, levels))
        return _frame(self._street, camera, time, light, ambient, self._tunnels,
                      self._seed * 1_000_003 + index, self.stamp_ns(index))  # fmt: skip

    def surfaces(self, index: int) -> StreetScene:
        """Paint what the LiDAR sees at one frame, without light."""
        view = self._view(index, (1280, 720), LIDAR_MOUNT)
        return StreetScene(self._street, *view, self._tunnels)

    def stamp_ns(self, index: int) -> int:
        return START_NS + round(index * 1e9 / self._fps)

    @property
    def _street(self) -> Street:
        # not an attribute: a drive is pickled for other processes, and a street has 40 MB
        return _street(self._seed, 'demo')

    def _view(self, index: int, size: tuple[int, int], mount: Mount) -> tuple[Camera, float]:
        """Return the camera and the time of the traffic."""
        elapsed = index / self._fps
        time = elapsed + self._seed % 977
        return _camera(self._street, self._start + SPEED * elapsed, time, size, mount), time


# -- the LiDAR, and where the sensors are ----------------------------------------------------


#: Name, place in a point's bytes, type of sensor_msgs/PointField and numpy's, of a sweep.
_FIELDS = (('x', 0, 7, '<f4'), ('y', 4, 7, '<f4'), ('z', 8, 7, '<f4'), ('ring', 12, 4, '<u2'),
           ('truth', 14, 2, 'u1'))  # fmt: skip


def scan(drive: Drive, index: int, *, lines: int = 64) -> Cloud:
    """
    Return the echoes of ``lines`` × 400 rays, ±30° wide and from 9° up to 17° down.

    x ahead, y left and z up are metres in the LiDAR's body frame, ``ring`` is the line from above,
    ``truth`` the true id. An echo comes from the middle of a surface that the drive has painted.
    """
    scene = drive.surfaces(index)
    camera = scene.camera
    elevation = np.radians(np.linspace(9, -17, lines))
    azimuth = np.radians(np.linspace(-30, 30, 400))
    # the rays of a spinning mirror: the rows bend outwards in the image
    u = camera.center[0] + camera.focal * np.tan(azimuth)[None]
    v = camera.center[1] - camera.focal * np.tan(elevation)[:, None] / np.cos(azimuth)[None]
    column, row = np.broadcast_arrays(u.astype(int), v.astype(int))
    kept = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    line, _ = np.nonzero(kept)
    row, column = row[kept], column[kept]
    depth = scene.depth[row, column].astype(np.float64)
    x = (column + 0.5 - camera.center[0]) / camera.focal * depth
    y = (row + 0.5 - camera.center[1]) / camera.focal * depth
    with np.errstate(invalid='ignore'):
        echo = np.sqrt(x * x + y * y + depth * depth) < RANGE
    points = BODY_FROM_OPTICAL[:3, :3] @ np.stack([x[echo], y[echo], depth[echo]])
    values = (*points, line[echo], scene.label[row[echo], column[echo]])
    records = np.rec.fromarrays(values, [(name, kind) for name, *_, kind in _FIELDS])
    return Cloud(
        fields=tuple(Field(name=n, offset=at, datatype=number) for n, at, number, _ in _FIELDS),
        height=1, width=len(records), point_step=records.itemsize, row_step=records.nbytes,
        data=np.frombuffer(records.tobytes(), np.uint8), is_dense=True,
    )  # fmt: skip


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
    found = []
    for frame, (right, up) in {'lidar': LIDAR_MOUNT, **mounts}.items():
        place = from_pose((0.0, -right, up), (0.0, 0.0, 0.0, 1.0))
        optical = np.asarray(place @ BODY_FROM_OPTICAL)
        found.append(('base_link', frame, place if frame == 'lidar' else optical))
    return found


#: Where LiDAR and camera are.
PLACES = places({'camera': (0.0, 0.0)})


# -- a drive as a bag ------------------------------------------------------------------------


def write_drive(
    path: Path,
    drive: Drive,
    *,
    lidar_every: int = 0,
    processes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, bool]:
    """
    Render a drive into a bag and return whether each stamp (ns) belongs to its lit part.

    A bag that was written before is replaced.
    A LiDAR sweeps at every ``lidar_every`` frames, 0 for never. ``processes`` 0 takes one a CPU;
    their number changes nothing in the bag.
    """
    lit: dict[int, bool] = {}
    work = partial(_render, drive, lidar_every)
    processes = min(processes or len(os.sched_getaffinity(0)), len(drive))
    context = process_context() if processes > 1 else None
    with BagWriter(path, force=True) as bag, ExitStack() as stack:
        frames: Iterator[tuple[DriveFrame, Cloud | None]] = map(work, range(len(drive)))
        if context is not None:
            # they inherit that Ctrl-C is left to this process
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                pool = stack.enter_context(context.Pool(processes))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            frames = _in_order(pool, work, len(drive), 3 * processes)
        if lidar_every:
            qos = (reliable_qos(latched=True),)
            bag.add_topic(Channel(topic='/tf_static', msgtype='tf2_msgs/msg/TFMessage', qos=qos))
            bag.write_transforms('/tf_static', PLACES, stamp_ns=START_NS)
        for number, (rendered, sweep) in enumerate(frames):
            stamp = rendered.stamp_ns
            place = {'stamp_ns': stamp, 'frame_id': 'camera'}
            bag.write_image(IMAGE_TOPIC, rendered.image, 'rgb8', **place)
            bag.write_labels(TRUTH_TOPIC, rendered.labels, **place)
            if lidar_every:
                bag.write_calibration(INFO_TOPIC, calibration(rendered.camera), **place)
            if sweep is not None:
                bag.write_cloud(CLOUD_TOPIC, sweep, stamp_ns=stamp, frame_id='lidar')
            lit[stamp] = rendered.ambient >= LIT
            progress(number + 1, len(drive))
    return lit


def _in_order(pool: Pool, work: Callable[[int], T], count: int, most: int) -> Iterator[T]:
    """Yield the results of ``work``, of which at most ``most`` wait: ``imap`` keeps them all."""
    jobs = deque(pool.apply_async(work, (index,)) for index in range(min(most, count)))
    for index in range(len(jobs), count + len(jobs)):
        result = jobs.popleft().get()
        if index < count:
            jobs.append(pool.apply_async(work, (index,)))
        yield result


def _render(drive: Drive, lidar_every: int, index: int) -> tuple[DriveFrame, Cloud | None]:
    sweeps = lidar_every and index % lidar_every == 0
    frame = drive.frame(index)
    # nobody writes its depth
    frame = replace(frame, depth=frame.depth[:0])
    return frame, scan(drive, index) if sweeps else None


# -- streets as a data set -------------------------------------------------------------------

#: Share of each light in a data set of the given name.
MIXES: dict[str, dict[str, float]] = {
    'day': {'day': 1.0},
    'night': {'night': 0.4, 'dusk': 0.2, 'tunnel': 0.15, 'glare': 0.15, 'day': 0.1},
    'mixed': {'day': 0.4, 'night': 0.25, 'dusk': 0.15, 'tunnel': 0.1, 'glare': 0.1},
}
#: Pictures of a street, and metres of it on which they are taken.
_PER_STREET, _STREET_LENGTH = 8, 400.0


def write_rendered(
    out: Path,
    *,
    count: int,
    split: str,
    light: str,
    size: tuple[int, int],
    seed: int,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """
    Render ``out/images/LIGHT_NNNNNN.png`` (RGB) and ``out/labels/`` with the ids beside them.

    ``split`` is 'train' or 'demo', ``light`` one of ``MIXES``; the same arguments give the same
    bytes. ``folder:OUT`` is then a data set, whose ``taxonomy.json`` says what the ids mean. The
    folder appears whole or not at all; ``DataError`` where it exists and ``force`` is not set.
    """
    with whole_folder(
        out, 'a rendered data set', _is_ours, force=force, error=DataError
    ) as unfinished:
        for folder in ('images', 'labels'):
            (unfinished / folder).mkdir()
        taxonomy = json.dumps(CAMVID11.to_dict(), indent=1)
        (unfinished / 'taxonomy.json').write_text(taxonomy + '\n', encoding='utf-8')
        lights, shares = zip(*MIXES[light].items())
        for index in range(count):
            rng = np.random.default_rng([seed, index, 29])
            chosen = str(rng.choice(lights, p=shares))
            street = _street(seed * 10_007 + index // _PER_STREET, split)
            position = float(rng.uniform(0, _STREET_LENGTH))
            frame = render(street, position, chosen, seed=seed * 1_000_003 + index, size=size)
            for folder, picture in (('images', frame.image), ('labels', frame.labels)):
                file = unfinished / folder / f'{chosen}_{index:06d}.png'
                file.write_bytes(encode_picture(file.name, picture))
            progress(index + 1, count)


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but what ``write_rendered`` writes."""
    about = folder / 'taxonomy.json'
    known = {about, folder / 'images', folder / 'labels'}
    for light in LIGHTS:
        known.update(folder.glob(f'[il]*/{light}_{"[0-9]" * 6}.png'))
    return about.is_file() and known.issuperset(folder.rglob('*'))
