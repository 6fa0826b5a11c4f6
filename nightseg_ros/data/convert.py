# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Bags that are made of something: of pictures, or of a bag with results put into a copy.

``make_bag`` writes a video or a folder of pictures, with their labels where there are any.
``write_predictions`` copies a bag and adds the pipeline's results, ``write_painted`` labels on its
clouds, each on the topics on which the node has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
import heapq
import math
from operator import itemgetter
from pathlib import Path
import re
from typing import Any, Literal
from unicodedata import normalize

from nightseg_ros.bags.reader import BagError, BagReader, camera_of, HARMLESS, IMAGE_TYPES
from nightseg_ros.bags.storage import Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos, Storage
from nightseg_ros.clouds.geometry import CloudError, FrameTree
from nightseg_ros.clouds.painter import CloudPainter, Occlusion, PaintConfig, SensorCloud
from nightseg_ros.clouds.point_cloud import read_transform
from nightseg_ros.data import Output, PaintSettings
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import label_files, labels_of
from nightseg_ros.data.source import FrameSource
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.pipeline import Pipeline, WithheldError
from nightseg_ros.perception.result import (
    is_output,
    legend,
    NAMESPACE,
    output_prefixes,
    report,
    Result,
    Want,
)


@dataclass(slots=True)
class Converted:
    """What became of the frames, or of the clouds of a bag that was painted."""

    frames: int = 0
    """Images or clouds that were written."""
    points: int = 0
    labelled: int = 0
    """Images or points with labels."""
    routes: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    """Clouds that lack something of a camera, by ``CAMERA: reason``."""
    problems: list[str] = field(default_factory=list)
    """What could not be used, and why, and what the bag lost."""
    left_out: list[str] = field(default_factory=list)
    """Topics of the bag that are not in the copy, and why."""
    note: str = ''
    """Which images were left out as no cameras."""

    def check(self, text: str) -> None:
        """Raise ``BagError`` with ``text`` and the first problem where nothing was written."""
        if not self.frames:
            raise BagError(': '.join([text, *self.problems[:1]]))


# -- pictures --------------------------------------------------------------------------------


def make_bag(
    source: FrameSource,
    out: Path,
    *,
    topic: str = '/camera/image_raw',
    frame_id: str = 'camera',
    encoding: Literal['raw', 'png', 'jpeg'] = 'raw',
    labels: Path | None = None,
    storage: Storage = 'mcap',
    compress: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Converted:
    """
    Write the frames of a video or folder as images of one camera.

    'raw' and 'png' keep every pixel, 'jpeg' does not; the last two go to ``TOPIC/compressed``.
    Stamps that begin at 0, as those of a rate do, are moved by ``STAMP_OFFSET``, since 0 means to
    ROS that there is none. ``labels`` is a folder of PNGs of ids, named as the pictures.
    ``BagError`` where the bag cannot be written or no picture can be read, ``DataError`` for unfit
    labels.
    """
    made = Converted()
    offset = source.ros_offset_ns
    name = '/' + topic.strip('/')
    if encoding != 'raw':
        name = name.removesuffix('/compressed')
    if not re.fullmatch(r'(/[A-Za-z_]\w*)+', name, re.ASCII):
        raise BagError(f"'{topic}' is no topic; words of letters, digits and _ are, parted by /")
    # as in the bags of rendered drives
    truth = f'/{camera_of(name)}/labels_truth'
    inputs = [source.path, *([] if labels is None else [labels])]
    truths = {} if labels is None else label_files(labels)
    with BagWriter(out, storage=storage, compress=compress, force=force, inputs=inputs) as bag:
        for number, (stem, item) in enumerate(source):
            progress(number + 1, source.count)
            if isinstance(item, FrameError):
                made.problems.append(f'{stem}: {item}')
                continue
            stamp = item.stamp_ns + offset
            place: Any = {'stamp_ns': stamp, 'frame_id': frame_id}
            if encoding == 'raw':
                bag.write_image(name, item.image, f'{item.order}8', **place)
            else:
                file = f'{stem}.{encoding}'
                content = encode_picture(file, item.image, quality=95, order=item.order)
                kind = f'bgr8; {encoding} compressed bgr8'
                bag.write_compressed(f'{name}/compressed', content, kind, **place)
            made.frames += 1
            label = truths.get(normalize('NFC', stem))
            if label is not None:
                bag.write_labels(truth, labels_of(label, item.image), **place)
                made.labelled += 1
        made.check(f"no frame of '{source.path}' could be read")
        if labels is not None and not made.labelled:
            raise BagError(f"'{labels}' holds no PNG that is named as one of the pictures")
    return made


# -- predictions -----------------------------------------------------------------------------

_IMAGE, _COMPRESSED = IMAGE_TYPES
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
#: What the layouts for RViz and Foxglove show, labels and legend.
DEFAULT_OUTPUTS = tuple(name for name in KINDS if name not in ('confidence', 'translated'))

#: Results that a bag may hold already; the last two are the node's alone.
_RESULTS = (*KINDS, 'labels/compressed', 'label_info')

#: When something was recorded, and what writes it into the copy.
_Written = tuple[int, Callable[[], None]]


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
) -> Converted:
    """
    Copy a bag and add the results of its cameras (``topics``; all without).

    Each camera's frames go through the pipeline in the order of their stamps; the results have
    the stamp and frame_id of their image and lie where it was recorded. Results that the bag
    already has are not copied. The same bag and backend give the same bytes. Of a ROS 1 bag only
    the images are copied. ``BagError`` where there is nothing to read, no place to write, or two
    topics are of one camera.
    """
    done = Converted()
    with BagReader(source) as bag:
        found = (bag.camera_topic(name) for name in topics)
        cameras = [*{camera.name: camera for camera in found}.values()]
        if not cameras:
            # without a camera it says what is in the bag
            cameras = bag.camera_topics or [bag.camera_topic()]
            done.note = bag.others_text()
        names = [camera.name for camera in cameras]
        prefixes = dict(zip(names, output_prefixes(names)))
        last = {prefix: name for name, prefix in prefixes.items()}
        for name, prefix in prefixes.items():
            if last[prefix] != name:
                raise BagError(
                    f"'{name}' and '{last[prefix]}' are of one camera: name one with --topic"
                )
        total = sum(camera.count for camera in cameras)
        with BagWriter(
            out, storage=storage, compress=compress, force=force, inputs=[source]
        ) as writer:

            def write(prefix: str, result: Result, received_ns: int) -> None:
                _write_result(writer, prefix, result, received_ns, outputs)
                done.routes[result.decision.route] += 1
                done.frames += 1
                progress(done.frames, total)

            def predictions() -> Iterator[_Written]:
                pictures = {output.removesuffix('/compressed') for output in outputs}
                want = Want(**{picture.name: picture.name in pictures for picture in fields(Want)})
                found = bag.merged_frames(cameras, lambda name: _camera(prefixes[name]))
                for topic, message, frame in found:
                    prefix, received = prefixes[topic.name], message.received_ns
                    if isinstance(frame, Frame) and not bag.is_ros2:
                        yield received, partial(_copy_ros1, bag, writer, message, frame)
                    try:
                        if isinstance(frame, FrameError):
                            raise frame
                        [result] = pipeline.process([frame], want)
                    except (FrameError, WithheldError) as error:
                        done.problems.append(f'{topic.name}, stamp {message.stamp_ns}: {error}')
                    else:
                        yield received, partial(write, prefix, result, received)

            copies: Iterable[_Written] = ()
            if bag.is_ros2:
                ours = {
                    f'{prefix}/{output}': (
                        'predicted anew' if output in outputs else 'of an earlier prediction'
                    )
                    for prefix in prefixes.values()
                    for output in _RESULTS
                }
                replaced = sorted(ours.keys() & {topic.name for topic in bag.topics})
                done.left_out += [f"'{name}' is {ours[name]}" for name in replaced]
                for channel in bag.empty_channels(leave_out=replaced):
                    writer.add_topic(channel)
                copies = (
                    (message.received_ns, partial(writer.write, message))
                    for message in bag.records(leave_out=replaced)
                )
            else:
                done.left_out += [
                    f"'{topic.name}' is none of the images, which alone are copied of a ROS 1 bag"
                    for topic in bag.topics
                    if topic.name not in names
                ]
            # of what was recorded at one time, an image comes before what was made of it
            merged = heapq.merge(copies, predictions(), key=itemgetter(0))
            for number, (received, run) in enumerate(merged):
                for prefix in prefixes.values() if number == 0 else ():
                    _announce(writer, prefix, outputs, legend(pipeline.taxonomy), received)
                run()
            unread = bag.read_error(cameras)
            # the cameras may be whole where the copy of another topic is not
            done.problems += _lost(bag) if unread is None else [str(unread)]
            done.check(f"no frame of '{source}' could be predicted")
    return done


def _lost(bag: BagReader) -> list[str]:
    """Return what a bag did not give; files of other names are no loss."""
    return [text for text in bag.read_errors() if not text.endswith(HARMLESS)]


def _copy_ros1(bag: BagReader, writer: BagWriter, message: Message, frame: Frame) -> None:
    """Write an image of ROS 1 anew for ROS 2."""
    topic, received = message.channel.topic, message.received_ns
    if message.channel.msgtype == _COMPRESSED:
        image = bag.read(message)
        writer.write_compressed(
            topic, bytes(image.data), image.format, stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id, received_ns=received,
        )  # fmt: skip
    else:
        writer.write_frame(topic, frame, received_ns=received)


def _announce(
    writer: BagWriter, prefix: str, outputs: Sequence[Output], ids: str, received_ns: int
) -> None:
    """Add the topics of a camera, and say what the ids mean."""
    for output, kind in KINDS.items():
        if output not in outputs:
            continue
        qos = reliable_qos(latched=output == 'label_info_json')
        writer.add_topic(Channel(topic=f'{prefix}/{output}', msgtype=kind, qos=(qos,)))
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
            camera, (level, message, values) = _camera(prefix), report(result, {}, None)
            status = {
                'level': int(level == 'WARN'), 'name': f'nightseg: {camera}', 'message': message,
                'hardware_id': camera,
                'values': [{'key': key, 'value': value} for key, value in values.items()],
            }  # fmt: skip
            writer.write_stamped(topic, KINDS['status'], status=[status], **place)
        elif output == 'overlay/compressed':
            assert result.overlay is not None
            content = encode_picture('overlay.jpg', result.overlay, quality=90)
            writer.write_compressed(topic, content, 'rgb8; jpeg compressed bgr8', **place)
        elif output != 'label_info_json':
            picture = getattr(result, output)
            # only the route 'translate' has a translated picture
            if picture is not None:
                writer.write_image(
                    topic, picture, 'mono8' if picture.ndim == 2 else 'rgb8', **place
                )


def _camera(prefix: str) -> str:
    """Return what the node calls the camera whose topics begin so."""
    return prefix.removesuffix(f'/{NAMESPACE}').strip('/')


# -- labels on clouds ------------------------------------------------------------------------

_CLOUD = 'sensor_msgs/msg/PointCloud2'
_POSES = ('nav_msgs/msg/Odometry', 'geometry_msgs/msg/PoseStamped')
_LABELS = f'/{NAMESPACE}/labels'


def write_painted(
    source: Path,
    out: Path,
    settings: PaintSettings,
    *,
    storage: Storage = 'mcap',
    compress: bool = True,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
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
            rectified=settings.rectified,
            occlusion=Occlusion(
                cell=settings.occlusion_cell, clearance=settings.occlusion_clearance
            ),
            ego_motion=bool(settings.odometry), base_frame=settings.base_frame,
            # nobody is in a hurry
            most_waiting=math.inf, max_wait=2.0,
        )  # fmt: skip
        total = sum(names[name].count for name in sensors)
        with BagWriter(
            out, storage=storage, compress=compress, force=force, inputs=[source]
        ) as writer:
            copy = _PaintedCopy(bag, writer, config, settings, sensors)
            copy.run(lambda clouds: progress(clouds, total))
            done = copy.done
            done.check(f"no cloud of '{source}' could be painted")
            done.problems += _lost(bag)
    return done


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
    strangers = settings.depth_topics().keys() - set(found.values())
    if strangers:
        raise BagError(
            f"a depth image is registered to a camera with labels; '{min(strangers)}' has none"
        )
    return found


def _sensors(bag: BagReader, settings: PaintSettings) -> dict[str, str]:
    """Return the prefix of the outputs by the topic of each cloud or depth image."""
    topics = {topic.name: topic for topic in bag.topics}

    def checked(name: str, *kinds: str) -> str:
        if name not in topics:
            raise BagError(f"'{bag.path}' has no topic '{name}'; it holds {', '.join(topics)}")
        if topics[name].msgtype not in kinds:
            raise BagError(f"'{name}' is {topics[name].msgtype}; wanted: {' or '.join(kinds)}")
        return name

    clouds = [checked(name, _CLOUD) for name in dict.fromkeys(settings.sensors)] or [
        topic.name for topic in topics.values()
        if topic.msgtype == _CLOUD and not is_output(topic.name)
    ]  # fmt: skip
    found = dict(zip(clouds, output_prefixes(clouds)))
    for camera, name in settings.depth_topics().items():
        found[checked(name, _IMAGE)] = f'/{camera}/{NAMESPACE}'
    if settings.odometry:
        checked(settings.odometry, *_POSES)
    if not found:
        raise BagError(f"'{bag.path}' holds no {_CLOUD}; name a depth image with --depth")
    for prefix, count in Counter(found.values()).items():
        if count > 1:
            raise BagError(f"two sensors would share '{prefix}/points': name one with --sensors")
    return found


class _PaintedCopy:
    """The copy of one bag, and what its messages have told so far."""

    def __init__(
        self, bag: BagReader, writer: BagWriter, config: PaintConfig, settings: PaintSettings,
        sensors: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.done = Converted()
        self._bag, self._writer, self._settings, self._sensors = bag, writer, settings, sensors
        self._frames = FrameTree()
        self._add_given_transforms()
        self._painter = painter = CloudPainter(config, self._frames.lookup)
        #: What takes the messages of a topic.
        self._handlers: dict[str, Callable[[Any], None]] = {'/tf_static': self._transforms}
        for camera in config.cameras:
            for topic, take in (
                (f'{NAMESPACE}/labels', painter.take_labels),
                (f'{NAMESPACE}/confidence', painter.take_confidence),
                (f'{NAMESPACE}/label_info_json', painter.take_legend),
                ('camera_info', painter.take_info),
            ):
                self._handlers[f'/{camera}/{topic}'] = partial(take, camera)
        if settings.odometry:
            self._handlers[settings.odometry] = painter.take_pose
        # these wait from the time at which they were recorded
        self._clouds = {topic: partial(painter.take_cloud, topic) for topic in sensors}
        for camera, topic in settings.depth_topics().items():
            self._clouds[topic] = partial(painter.take_depth, camera)

    def run(self, progress: Callable[[int], None]) -> None:
        """Copy and paint everything; ``progress`` gets the clouds so far."""
        # the places of the sensors hold from the beginning, whenever they were recorded
        others = {topic.name for topic in self._bag.topics} - {'/tf_static'}
        for record in self._bag.records(leave_out=others):
            self._take(record)
        ours = {f'{prefix}/points' for prefix in self._sensors.values()}
        last = 0
        for channel in self._bag.empty_channels(leave_out=ours):
            self._writer.add_topic(channel)
        for record in self._bag.records(leave_out=ours):
            last = record.received_ns
            self._writer.write(record)
            if record.channel.topic in self._handlers or record.channel.topic in self._clouds:
                self._take(record)
                self._write(self._painter.due(last / 1e9), last, progress)
        self._write(self._painter.due(last / 1e9, everything=True), last, progress)

    def _take(self, record: Message) -> None:
        """Use a message; what is wrong with it is a problem of its own."""
        topic, received = record.channel.topic, record.received_ns
        try:
            content = self._bag.read(record)
            if topic in self._clouds:
                self._clouds[topic](content, received / 1e9)
            else:
                self._handlers[topic](content)
        except (CloudError, BagError) as error:
            self.done.problems.append(f'{topic}, at {received} ns: {error}')

    def _transforms(self, message: Any) -> None:
        problem: CloudError | None = None
        for item in message.transforms:
            if item.child_frame_id.strip('/') in self._given:
                continue
            try:
                place = read_transform(item)
            except CloudError as error:
                problem = problem or error
            else:
                self._frames.add(item.header.frame_id, item.child_frame_id, place)
        self._add_given_transforms()
        if problem is not None:
            raise problem

    def _add_given_transforms(self) -> None:
        """Add what a person says, which counts more than any recorded place of the same frame."""
        self._given = {self._frames.add_text(text) for text in self._settings.transforms}

    def _write(
        self, due: Sequence[SensorCloud], received_ns: int, progress: Callable[[int], None]
    ) -> None:
        for labelled in map(self._painter.label, due):
            # a cloud of a depth image bears the name of its camera
            topic = self._settings.depth_topics().get(labelled.sensor, labelled.sensor)
            name = f'{self._sensors[topic]}/points'
            self._writer.add_topic(Channel(topic=name, msgtype=_CLOUD, qos=(reliable_qos(),)))
            self._writer.write_cloud(
                name, labelled.cloud, stamp_ns=labelled.stamp_ns, frame_id=labelled.frame_id,
                received_ns=received_ns,
            )  # fmt: skip
            self.done.frames += 1
            self.done.points += len(labelled.cloud)
            self.done.labelled += labelled.labelled
            for camera, (reason, _) in labelled.misses.items():
                self.done.misses[f'{camera}: {reason}'] += 1
            progress(self.done.frames)
