# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A copy of a bag with the pipeline's results in it, on the topics on which the node has them."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import BagReader, Message, Topic
from nightseg_ros.bags.records import Channel
from nightseg_ros.bags.writer import BagWriter, Storage, reliable_qos
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.frame_report import legend, report
from nightseg_ros.perception.naming import NAMESPACE, output_prefixes
from nightseg_ros.perception.pipeline import Pipeline, WithheldError
from nightseg_ros.perception.result import Result, Want

Output = Literal[
    'labels', 'confidence', 'color', 'overlay', 'overlay/compressed', 'translated',
    'illumination', 'status', 'label_info_json',
]  # fmt: skip
_IMAGE, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
#: Topics that can be written, by the last part of their name, and their types.
KINDS: dict[Output, str] = {
    'labels': _IMAGE,
    'confidence': _IMAGE,
    'color': _IMAGE,
    'overlay': _IMAGE,
    'overlay/compressed': _COMPRESSED,
    'translated': _IMAGE,
    'illumination': 'std_msgs/msg/Float32',
    'status': 'diagnostic_msgs/msg/DiagnosticArray',
    'label_info_json': 'std_msgs/msg/String',
}
#: What the layouts for RViz and Foxglove show.
DEFAULT_OUTPUTS: tuple[Output, ...] = (
    'labels', 'color', 'overlay', 'overlay/compressed', 'illumination', 'status',
    'label_info_json',
)  # fmt: skip
_LATCHED = ('label_info_json',)
#: Levels of diagnostic_msgs/DiagnosticStatus.
_LEVELS = {'OK': 0, 'WARN': 1}


@dataclass(slots=True)
class Predicted:
    """What became of the frames."""

    frames: int = 0
    routes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """Frames that have no prediction, and why, and what the bag lost."""
    left_out: list[str] = field(default_factory=list)
    """Topics of the bag that are not in the copy, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """A message of the bag, serialised for ROS 2 or, from ROS 1, to be written anew."""

    received_ns: int
    topic: str
    type: str
    content: bytes | Frame | Message


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prediction:
    """One frame's results, or why there are none."""

    received_ns: int
    prefix: str
    result: Result | str


def write_predictions(
    source: Path,
    out: Path,
    pipeline: Pipeline,
    *,
    topics: Sequence[str] = (),
    outputs: Sequence[Output] = DEFAULT_OUTPUTS,
    storage: Storage = 'mcap',
    compress: bool = True,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """
    Copy a bag and add the results of its cameras (``topics``; all without).

    Each camera's frames go through the pipeline in the order of their stamps; the results have
    the stamp and frame_id of their image and lie where it was recorded. Topics of these names that
    the bag already has are replaced. The same bag and backend give the same bytes. Of a ROS 1 bag
    only the images are copied. ``BagError`` where there is nothing to read, or no place to write.
    """
    done = Predicted()
    with BagReader(source) as bag:
        cameras = [bag.image_topic(name) for name in topics] or bag.camera_topics
        # says what is in the bag
        cameras = cameras or [bag.image_topic()]
        names = [camera.name for camera in cameras]
        prefixes = dict(zip(names, output_prefixes(names)))
        total = sum(camera.count for camera in cameras)
        with BagWriter(out, storage=storage, compress=compress, force=force) as writer:
            copies = _ros2_copies(bag, writer, prefixes.values(), done)
            if not bag.is_ros2:
                copies = _ros1_copies(bag, cameras, done)
            predictions = _predictions(bag, cameras, prefixes, pipeline, _want(outputs))
            told = False
            # of what was recorded at one time, an image comes before what was made of it
            streams: list[Iterator[_Copy | _Prediction]] = [copies, predictions]
            for item in heapq.merge(*streams, key=lambda item: item.received_ns):
                received = item.received_ns
                if not told:
                    _announce(
                        writer, prefixes.values(), outputs, legend(pipeline.taxonomy), received
                    )
                    told = True
                if isinstance(item, _Copy):
                    _write_copy(writer, bag, item)
                elif isinstance(item.result, Result):
                    _write_result(writer, item.prefix, item.result, received, outputs)
                    done.routes[item.result.decision.route] += 1
                    done.frames += 1
                    progress(done.frames, total)
                else:
                    done.problems.append(item.result)
            loss = bag.loss(cameras)
            if loss is not None:
                done.problems.append(str(loss))
            if not done.frames:
                reason = f': {done.problems[0]}' if done.problems else ''
                raise BagError(f"no frame of '{source}' could be predicted{reason}")
    return done


def _predictions(
    bag: BagReader,
    cameras: Sequence[Topic],
    prefixes: Mapping[str, str],
    pipeline: Pipeline,
    want: Want,
) -> Iterator[_Prediction]:
    """Run the frames of all cameras in the order of their stamps."""
    for topic, message in bag.merged(cameras):
        prefix = prefixes[topic.name]
        frame = bag.frame(message, _camera(prefix))
        found: Result | str
        if isinstance(frame, Frame):
            try:
                [found] = pipeline.process([frame], want)
            except WithheldError as error:
                found = f'{topic.name}, stamp {message.stamp_ns}: {error}'
        else:
            found = f'{topic.name}, stamp {message.stamp_ns}: {frame}'
        yield _Prediction(received_ns=message.received_ns, prefix=prefix, result=found)


def _ros2_copies(
    bag: BagReader, writer: BagWriter, prefixes: Iterable[str], done: Predicted
) -> Iterator[_Copy]:
    """Yield every message but those of topics that are predicted or that cannot be written."""
    ours = {f'{prefix}/{output}' for prefix in prefixes for output in KINDS}
    refused = {topic.name for topic in bag.topics if topic.name in ours}
    done.left_out += [f"'{name}' is predicted anew" for name in sorted(refused)]
    for record in bag.records(leave_out=frozenset(refused)):
        channel = record.channel
        if channel.topic in refused:
            continue
        try:
            writer.add_topic(channel)
        except BagError as error:
            refused.add(channel.topic)
            done.left_out.append(str(error))
            continue
        yield _Copy(
            received_ns=record.received_ns, topic=channel.topic, type=channel.type,
            content=record.data,
        )  # fmt: skip


def _ros1_copies(bag: BagReader, cameras: Sequence[Topic], done: Predicted) -> Iterator[_Copy]:
    """Yield the images of the cameras that can be decoded."""
    names = {camera.name for camera in cameras}
    done.left_out += [
        f"'{topic.name}' is none of the images, which alone are copied of a ROS 1 bag"
        for topic in bag.topics
        if topic.name not in names
    ]
    for topic, message in bag.merged(cameras):
        frame = bag.frame(message)
        if isinstance(frame, Frame):
            packed = message.type == _COMPRESSED
            yield _Copy(
                received_ns=message.received_ns, topic=topic.name, type=message.type,
                content=message if packed else frame,
            )  # fmt: skip


def _write_copy(writer: BagWriter, bag: BagReader, item: _Copy) -> None:
    if isinstance(item.content, bytes):
        writer.write_serialized(item.topic, item.type, item.content, item.received_ns)
    elif isinstance(item.content, Frame):
        writer.write_frame(item.topic, item.content, received_ns=item.received_ns)
    else:
        image = bag.read(item.content)
        writer.write_compressed(
            item.topic, bytes(image.data), image.format, stamp_ns=item.content.stamp_ns,
            frame_id=image.header.frame_id, received_ns=item.received_ns,
        )  # fmt: skip


def _announce(
    writer: BagWriter,
    prefixes: Iterable[str],
    outputs: Sequence[Output],
    ids: str,
    received_ns: int,
) -> None:
    """Add the topics of each camera, and say what the ids mean."""
    for prefix in prefixes:
        for output, kind in KINDS.items():
            if output not in outputs:
                continue
            qos = reliable_qos(latched=output in _LATCHED)
            writer.add_topic(Channel(topic=f'{prefix}/{output}', type=kind, qos=(qos,)))
            if output == 'label_info_json':
                writer.write_value(f'{prefix}/{output}', ids, received_ns)


def _write_result(
    writer: BagWriter, prefix: str, result: Result, received_ns: int, outputs: Sequence[Output]
) -> None:
    frame = result.frame
    place: Any = {
        'stamp_ns': frame.stamp_ns, 'frame_id': frame.frame_id, 'received_ns': received_ns,
    }  # fmt: skip
    for output in outputs:
        topic = f'{prefix}/{output}'
        if output == 'illumination':
            if math.isfinite(result.illumination.score):
                writer.write_value(topic, result.illumination.score, received_ns)
        elif output == 'status':
            found = report(_camera(prefix), result, {}, None)
            writer.write_status(
                topic, level=_LEVELS[found.level], name=found.name, message=found.message,
                hardware_id=found.camera, values=found.values, **place,
            )  # fmt: skip
        elif output == 'overlay/compressed':
            assert result.overlay is not None
            bgr = cv2.cvtColor(result.overlay, cv2.COLOR_RGB2BGR)
            _, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
            writer.write_compressed(
                topic, content.tobytes(), 'rgb8; jpeg compressed bgr8', **place
            )
        elif output != 'label_info_json':
            picture = getattr(result, output)
            # only the route 'translate' has a translated picture
            if picture is not None:
                writer.write_image(
                    topic, picture, 'mono8' if picture.ndim == 2 else 'rgb8', **place
                )


def _want(outputs: Sequence[Output]) -> Want:
    return Want(
        labels='labels' in outputs,
        confidence='confidence' in outputs,
        color='color' in outputs,
        overlay='overlay' in outputs or 'overlay/compressed' in outputs,
        translated='translated' in outputs,
    )


def _camera(prefix: str) -> str:
    """Return what the node calls the camera whose topics begin so."""
    return prefix.removesuffix(f'/{NAMESPACE}').strip('/')
