# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A copy of a bag with labels on its clouds, on the topics on which the node has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import BagReader, Message, Topic
from nightseg_ros.bags.records import Channel, Record
from nightseg_ros.bags.writer import BagWriter, Storage, reliable_qos
from nightseg_ros.clouds.depth import metres
from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.messages import (
    read_calibration,
    read_cloud,
    read_palette,
    read_pose,
    read_transform,
    stamp_of,
)
from nightseg_ros.clouds.occlusion import Occlusion
from nightseg_ros.clouds.painter import CloudPainter, LabelledCloud, PaintConfig
from nightseg_ros.clouds.plane import read_plane
from nightseg_ros.clouds.transform import FrameTree
from nightseg_ros.perception.naming import NAMESPACE
from nightseg_ros.taxonomy import UNLABELLED

_CLOUD = 'sensor_msgs/msg/PointCloud2'
_POSES = ('nav_msgs/msg/Odometry', 'geometry_msgs/msg/PoseStamped')
_LABELS = f'/{NAMESPACE}/labels'


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintSettings:
    """What of a bag is painted, and how."""

    sensors: tuple[str, ...] = ()
    """Topics of clouds; without them all but those that were painted already."""
    depth: Mapping[str, str] = field(default_factory=dict)
    """Topics of registered depth images by camera."""
    transforms: tuple[str, ...] = ()
    """Beside those on /tf_static; see ``FrameTree.add_text``."""
    odometry: str = ''
    """Topic of poses of ``base_frame``; '' for none."""
    base_frame: str = 'base_link'
    pair_limit: float = 0.1
    rectified: bool = False
    occlusion: Occlusion = field(default_factory=Occlusion)


@dataclass(slots=True)
class PaintedBag:
    """What became of the clouds."""

    clouds: int = 0
    points: int = 0
    labelled: int = 0
    misses: Counter[str] = field(default_factory=Counter)
    """Clouds that a camera had nothing to say about, by ``CAMERA: reason``."""
    problems: list[str] = field(default_factory=list)
    """Messages that could not be used, and what the bag lost."""


def write_painted(
    source: Path,
    out: Path,
    settings: PaintSettings,
    *,
    storage: Storage = 'mcap',
    compress: bool = True,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PaintedBag:
    """
    Copy a ROS 2 bag and add ``<sensor>/nightseg/points`` beside each cloud.

    Cameras are those whose labels are in the bag (``nightseg bag predict``). Messages are taken in
    the order in which they were recorded, as the node would have got them. ``BagError`` where the
    bag holds no labels or no clouds.
    """
    with BagReader(source) as bag:
        names = {topic.name: topic for topic in bag.topics}
        cameras = _cameras(bag, settings)
        sensors = _sensors(bag, settings)
        config = PaintConfig(
            cameras=tuple(cameras.values()), pair_limit=settings.pair_limit,
            confidence=all(f'{name[:-len("labels")]}confidence' in names for name in cameras),
            rectified=settings.rectified, occlusion=settings.occlusion,
            ego_motion=bool(settings.odometry), base_frame=settings.base_frame,
        )  # fmt: skip
        total = sum(names[name].count for name in sensors)
        with BagWriter(out, storage=storage, compress=compress, force=force) as writer:
            job = _Job(bag, writer, config, settings, sensors, lambda n: progress(n, total))
            job.run()
            if not job.done.clouds:
                reason = f': {job.done.problems[0]}' if job.done.problems else ''
                raise BagError(f"no cloud of '{source}' could be painted{reason}")
            loss = bag.loss([names[name] for name in sensors])
            if loss is not None and bag.losses():
                job.done.problems.append(str(loss))
    return job.done


def _cameras(bag: BagReader, settings: PaintSettings) -> dict[str, str]:
    """Return the cameras by the topic of their labels."""
    if not bag.is_ros2:
        raise BagError(f"'{bag.path}' is a ROS 1 bag; `nightseg bag predict` makes a ROS 2 one")
    found = {
        topic.name: topic.name.removesuffix(_LABELS).strip('/')
        for topic in bag.image_topics
        if topic.name.endswith(_LABELS)
    }
    if not found:
        raise BagError(
            f"'{bag.path}' holds no labels (<camera>{_LABELS}): put them in by `nightseg bag "
            'predict BAG --out COPY --outputs labels confidence label_info_json`'
        )
    strangers = settings.depth.keys() - set(found.values())
    if strangers:
        raise BagError(
            f"a depth image is registered to a camera with labels; '{min(strangers)}' has none"
        )
    return found


def _sensors(bag: BagReader, settings: PaintSettings) -> dict[str, str]:
    """Return the prefix of the outputs by the topic of each cloud or depth image."""
    topics = {topic.name: topic for topic in bag.topics}

    def checked(name: str) -> Topic:
        if name not in topics:
            raise BagError(f"'{bag.path}' has no topic '{name}'; it holds {', '.join(topics)}")
        return topics[name]

    chosen = [checked(name) for name in settings.sensors] or [
        topic for topic in topics.values()
        if topic.type == _CLOUD and f'/{NAMESPACE}/' not in topic.name
    ]  # fmt: skip
    found = {t.name: f'{t.name.rpartition("/")[0]}/{NAMESPACE}' for t in chosen}
    for camera, name in settings.depth.items():
        found[checked(name).name] = f'/{camera}/{NAMESPACE}'
    if not found:
        raise BagError(f"'{bag.path}' holds no {_CLOUD}; name a depth image with --depth")
    return found


class _Job:
    """One bag on its way."""

    def __init__(
        self, bag: BagReader, writer: BagWriter, config: PaintConfig, settings: PaintSettings,
        sensors: Mapping[str, str], progress: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.done = PaintedBag()
        self._bag, self._writer, self._settings, self._sensors = bag, writer, settings, sensors
        self._progress = progress
        self._frames = FrameTree()
        for text in settings.transforms:
            self._frames.add_text(text)
        self._painter = CloudPainter(config, self._frames.lookup)
        self._depth = {topic: camera for camera, topic in settings.depth.items()}
        self._handlers: dict[str, tuple[str, Callable[[str, Any, float], None]]] = {}
        for camera in config.cameras:
            for topic, handler in (
                (f'{NAMESPACE}/labels', self._labels),
                (f'{NAMESPACE}/confidence', self._confidence),
                (f'{NAMESPACE}/label_info_json', self._legend),
                ('camera_info', self._info),
            ):
                self._handlers[f'/{camera}/{topic}'] = (camera, handler)
        for topic in sensors:
            self._handlers[topic] = (topic, self._cloud)
        self._handlers['/tf_static'] = ('', self._transforms)
        if settings.odometry:
            self._handlers[settings.odometry] = ('', self._pose)

    def run(self) -> None:
        """Copy and paint everything."""
        # the places of the sensors hold from the beginning, whenever they were recorded
        for record in self._of('/tf_static'):
            self._take(record)
        ours = {f'{prefix}/points' for prefix in self._sensors.values()}
        refused: set[str] = set()
        last = 0
        for record in self._bag.records(leave_out=frozenset(ours)):
            channel, last = record.channel, record.received_ns
            if channel.topic in refused:
                continue
            try:
                self._writer.add_topic(channel)
            except BagError as error:
                refused.add(channel.topic)
                self.done.problems.append(str(error))
                continue
            self._writer.write_serialized(channel.topic, channel.type, record.data, last)
            if channel.topic in self._handlers:
                self._take(record)
                self._write(self._painter.due(last / 1e9), last)
        self._write(self._painter.due(last / 1e9, all_of_them=True), last)

    def _of(self, name: str) -> Iterator[Record]:
        others = {topic.name for topic in self._bag.topics} - {name}
        return self._bag.records(leave_out=others)

    def _take(self, record: Record) -> None:
        channel = record.channel
        owner, handler = self._handlers[channel.topic]
        message = Message(stamp_ns=0, received_ns=record.received_ns, type=channel.type,
                          data=record.data)  # fmt: skip
        try:
            handler(owner, self._bag.read(message), record.received_ns / 1e9)
        except (CloudError, BagError) as error:
            self.done.problems.append(f'{channel.topic}, at {record.received_ns} ns: {error}')

    def _labels(self, camera: str, message: Any, now: float) -> None:
        self._painter.masks(camera).add_labels(
            stamp_of(message), str(message.header.frame_id), read_plane(message, ('mono8',))
        )

    def _confidence(self, camera: str, message: Any, now: float) -> None:
        plane = read_plane(message, ('mono8',))
        self._painter.masks(camera).add_confidence(stamp_of(message), plane)

    def _info(self, camera: str, message: Any, now: float) -> None:
        self._painter.calibrate(camera, read_calibration(message))

    def _legend(self, camera: str, message: Any, now: float) -> None:
        self._painter.palette = read_palette(message.data)

    def _transforms(self, owner: str, message: Any, now: float) -> None:
        for item in message.transforms:
            self._frames.add(item.header.frame_id, item.child_frame_id, read_transform(item))
        # what a person says counts more
        for text in self._settings.transforms:
            self._frames.add_text(text)

    def _pose(self, owner: str, message: Any, now: float) -> None:
        if message.__msgtype__ not in _POSES:
            raise CloudError(f'{message.__msgtype__} is no pose; wanted: {" or ".join(_POSES)}')
        self._painter.poses.add(stamp_of(message), read_pose(message))

    def _cloud(self, topic: str, message: Any, now: float) -> None:
        stamp, frame_id = stamp_of(message), str(message.header.frame_id)
        if topic in self._depth:
            camera = self._depth[topic]
            self._painter.add_depth(camera, stamp, frame_id, metres(message), now)
        else:
            self._painter.add_cloud(topic, stamp, frame_id, read_cloud(message), now)

    def _write(self, found: Iterator[LabelledCloud], received_ns: int) -> None:
        for labelled in found:
            topic = labelled.sensor
            if topic not in self._sensors:
                topic = self._settings.depth[topic]
            name = f'{self._sensors[topic]}/points'
            self._writer.add_topic(Channel(topic=name, type=_CLOUD, qos=(reliable_qos(),)))
            self._writer.write_cloud(
                name, labelled.cloud, stamp_ns=labelled.stamp_ns, frame_id=labelled.frame_id,
                received_ns=received_ns,
            )  # fmt: skip
            self.done.clouds += 1
            self.done.points += len(labelled.cloud)
            self.done.labelled += int((labelled.painted.labels != UNLABELLED).sum())
            for camera, (reason, _) in labelled.misses.items():
                self.done.misses[f'{camera}: {reason}'] += 1
            self._progress(self.done.clouds)


__all__ = ['PaintSettings', 'PaintedBag', 'write_painted']
