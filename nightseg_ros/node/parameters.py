# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every parameter of night_perception and semantic_cloud: the tables, and the settings they make.

The fields of ``Settings`` and ``CloudSettings``, and of the configs in them, are the tables.
``python bench/node_tables.py`` writes ``config/*.yaml`` and the
tables of the documents from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, MISSING, replace
from functools import cached_property
import math
import textwrap
from typing import Any, Literal, TypeVar

from nightseg_ros.clouds.geometry import CloudError, FrameTree
from nightseg_ros.clouds.painter import PaintConfig
from nightseg_ros.config import ConfigError, did_you_mean, from_mapping, live, setting
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.perception.result import (
    base_topic,
    is_output,
    NAMESPACE,
    output_prefixes,
    transport_of,
    TRANSPORTS,
)
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

Value = bool | int | float | str | tuple[str, ...]
T = TypeVar('T')

_KINDS = {
    bool: ('bool', RosParameter.Type.BOOL),
    int: ('integer', RosParameter.Type.INTEGER),
    float: ('double', RosParameter.Type.DOUBLE),
    str: ('string', RosParameter.Type.STRING),
    list: ('string array', RosParameter.Type.STRING_ARRAY),
}
#: Overrides that belong to rclpy and are no mistake.
_FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')
RELIABILITIES = ('auto', 'reliable', 'best_effort')
ODOMETRY_TYPES = ('nav_msgs/Odometry', 'geometry_msgs/PoseStamped')


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One ROS parameter: the type is that of the default, ``('',)`` being an empty list."""

    path: tuple[str, ...]
    """Names of the configs in ``Settings`` or ``CloudSettings`` that lead to it, and its own."""
    default: Value
    text: str
    dynamic: bool = False
    """Whether it may change while the node is configured; the others wait for a configure."""
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name, such as router.dark; it does not tell of the outermost configs."""
        return '.'.join(part for part in self.path if part not in ('pipeline', 'painting'))

    @property
    def plain_default(self) -> Any:
        """Return the default as ROS and YAML have it, with a list for an array."""
        return list(self.default) if isinstance(self.default, tuple) else self.default

    @property
    def kind(self) -> str:
        """Return the ROS name of its type."""
        return _KINDS[type(self.plain_default)][0]

    @property
    def accepted(self) -> str:
        """Return the accepted values in words, '' where every value of the type is."""
        if self.choices:
            return ', '.join(self.choices)
        return '' if self.bounds is None else f'{self.bounds[0]:g} to {self.bounds[1]:g}'

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` is refused, None where it is fine."""
        # bool is an int to Python
        if type(value) is not type(self.plain_default):
            return f"parameter '{self.name}' must be a {self.kind}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"parameter '{self.name}' must be one of {self.accepted}; got '{value}'"
        if self.bounds is not None:
            # written so that NaN is refused, too
            low, high = self.bounds
            if not low <= value <= high or not math.isfinite(value):
                return f"parameter '{self.name}' must be {self.accepted}, got {value}"
        return None

    def descriptor(self) -> ParameterDescriptor:
        """Return it as ROS tools show it."""
        when = 'may change at run time' if self.dynamic else 'takes effect by configure'
        result = ParameterDescriptor(
            name=self.name,
            type=_KINDS[type(self.plain_default)][1].value,
            description=f'{self.text} ({when})',
            additional_constraints=f'one of {self.accepted}' if self.choices else '',
        )
        if self.bounds is not None:
            kind = type(self.default)
            low, high = map(kind, self.bounds)
            if kind is int:
                result.integer_range = [IntegerRange(from_value=low, to_value=high)]
            else:
                result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return result


def table(kind: type[Any], path: tuple[str, ...] = ()) -> tuple[Parameter, ...]:
    """Return a row of each setting of ``Settings`` or ``CloudSettings``, and of configs in it."""
    rows: list[Parameter] = []
    for f in fields(kind):
        inner: Any = f.default_factory
        default: Any = f.default
        if inner is not MISSING:
            rows += table(inner, (*path, f.name))
        elif 'text' in f.metadata:
            rows.append(Parameter(path=(*path, f.name), default=default, **f.metadata))
    return tuple(rows)


def settings_of(kind: type[T], values: Mapping[str, Any]) -> T:
    """
    Build settings from the value of every parameter by its name, which has no ``problem``.

    ``ConfigError`` names the first value that contradicts another.
    """
    nested: dict[str, Any] = {}
    for row in table(kind):
        value, inner = values[row.name], nested
        for part in row.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[row.path[-1]] = tuple(value) if isinstance(value, list) else value
    for f in fields(kind):  # type: ignore[arg-type]
        inner_kind: Any = f.default_factory
        if inner_kind is not MISSING:
            nested[f.name] = from_mapping(inner_kind, nested[f.name])
    return kind(**nested)


# -- night_perception ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraNames:
    """Where one camera is read and published; names are relative unless the user's are not."""

    name: str
    image_topic: str
    info_topic: str
    output: str
    """Prefix of the output topics, without a slash at its end."""
    ego_mask: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameters of night_perception."""

    # fmt: off
    autostart: bool = setting(
        True, 'configure and activate when the process starts; false waits for a lifecycle '
        'manager')
    cameras: tuple[str, ...] = setting(
        ('camera',), 'cameras, each read from <camera>/image_raw and published under '
        '<camera>/nightseg/')
    image_topics: tuple[str, ...] = setting(
        ('',), 'image topics instead, one a camera; without cameras, each is named as its topic '
        'without the last part')
    transport: str = setting(
        'raw', 'Image; CompressedImage, of <topic>/compressed; FFMPEGPacket (ffmpeg) or '
        'CompressedVideo (foxglove), of image_topics as they are or '
        '<camera>/image_raw/<transport>', choices=tuple(TRANSPORTS))
    qos_reliability: str = setting(
        'auto', 'reliability of the image subscriptions; auto does as the publisher does',
        choices=RELIABILITIES)
    max_rate: float = live(
        0.0, 'frames a second of each camera to serve at most; 0 serves all', bounds=(0, 1000))
    max_age: float = live(
        0.0, 'drop frames, also segmented ones, whose stamp is older than this many seconds; 0 '
        'drops none (a bag without use_sim_time is years old)', bounds=(0, 3600))
    silent_after: float = live(
        1.2, 'seconds without a frame after which a camera is reported as silent',
        bounds=(0.1, 60))
    watchdog_s: float = live(
        30.0, 'seconds after which a batch or callback that hangs ends the process with code 1; '
        'the launch file restarts it', bounds=(1, 3600))
    watchdog_load_s: float = live(
        600.0, 'the same while networks are loaded, or prepared for a new size of image',
        bounds=(1, 3600))
    min_reliability: float = live(
        0.65, "below this reliability a camera 'cannot see' (calibrated weights only); its masks "
        'are published all the same', bounds=(0, 1))
    label_size: str = setting(
        'camera', 'size of labels and confidence: that of the image, or the smaller one of the '
        'network', choices=('camera', 'network'))
    ego_masks: tuple[str, ...] = setting(
        ('',), 'image files, one a camera, non-zero where the own vehicle is seen: those pixels '
        "become 255; '' for none")
    jpeg_quality: int = live(90, 'quality of overlay/compressed', bounds=(1, 100))
    cpu_fallback: bool = live(
        True, 'run the networks on the CPU where the device has no memory for a single frame')
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    # fmt: on

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` where values contradict each other."""
        # made here, so that what they refuse is refused now
        _ = self.camera_names

    @cached_property
    def camera_names(self) -> tuple[CameraNames, ...]:
        """Return the names, topics and masks of each camera."""
        names, topics = _names('cameras', self.cameras), _given(self.image_topics)
        if not names and not topics:
            raise ConfigError(
                "'cameras' and 'image_topics' are both empty; name at least one camera"
            )
        given = bool(topics)
        if topics and tuple(names) in ((), Settings.cameras):
            _refuse_invalid('image_topics', topics)
            outputs = output_prefixes(topics)
            names = [output.removesuffix(f'/{NAMESPACE}').strip('/') for output in outputs]
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(
                        f"'image_topics' gives two cameras the name '{name}': name each by "
                        "'cameras'"
                    )
        else:
            outputs = [f'{name}/{NAMESPACE}' for name in names]
            topics = _topics('image_topics', topics, names, 'image_raw')
        masks = [mask.strip() for mask in self.ego_masks]
        masks = masks if any(masks) else [''] * len(names)
        if len(masks) != len(names):
            raise ConfigError(
                f"'ego_masks' has {len(masks)} files for {len(names)} cameras; give one a camera, "
                "'' for none"
            )
        cameras, transport = [], self.transport
        for name, topic, output, mask in zip(names, topics, outputs, masks):
            stem = base_topic(topic)
            ours = is_output(topic)
            if ours or topic.endswith('/compressedDepth'):
                raise ConfigError(
                    f"'image_topics' names {topic}, which is no camera's picture but a "
                    f'{"mask" if ours else "depth image"}'
                )
            whole = transport in ('raw', transport_of(topic))
            cameras.append(CameraNames(
                name=name,
                image_topic=topic if whole or (given and transport != 'compressed')
                else f'{topic}/{transport}',
                # where image_transport puts it
                info_topic=f'{stem.rpartition("/")[0]}/camera_info' if '/' in stem
                else 'camera_info',
                output=output, ego_mask=mask,
            ))  # fmt: skip
        return tuple(cameras)


def _given(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _names(parameter: str, given: Sequence[str]) -> list[str]:
    names = [name.rstrip('/') for name in _given(given)]
    _refuse_invalid(parameter, names)
    return names


def _refuse_invalid(parameter: str, names: Sequence[str]) -> None:
    for name in names:
        try:
            validate_topic_name(name)
            validate_full_topic_name(expand_topic_name(name, 'node', '/'))
        except (InvalidTopicNameException, ValueError) as error:
            reason = str(error).partition('\n')[0].partition(', at ')[0].rstrip(':')
            raise ConfigError(f"'{parameter}' names '{name}': {reason}") from error


def _topics(parameter: str, given: Sequence[str], names: Sequence[str], last: str) -> list[str]:
    """Return a topic for each name: the given ones, or NAME/last."""
    topics = _given(given) or [f'{name}/{last}' for name in names]
    if len(topics) != len(names):
        raise ConfigError(
            f"'{parameter}' has {len(topics)} topics for {len(names)} names; give one each or none"
        )
    _refuse_invalid(parameter, topics)
    return topics


# -- semantic_cloud --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """Where points come from and go to; names are relative unless the user's are not."""

    name: str
    topic: str
    output: str
    kind: Literal['cloud', 'depth']


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """The parameters of semantic_cloud."""

    # fmt: off
    autostart: bool = setting(
        True, 'configure and activate when the process starts; false waits for a lifecycle '
        'manager')
    cameras: tuple[str, ...] = setting(
        ('camera',), 'cameras whose labels are read from <camera>/nightseg/labels; of equal '
        'confidence the first wins')
    info_topics: tuple[str, ...] = setting(
        ('',), "topics of the cameras' calibration, one a camera, where it is not "
        '<camera>/camera_info')
    sensors: tuple[str, ...] = setting(
        ('lidar',), 'LiDARs, each read from <sensor>/points and published on '
        '<sensor>/nightseg/points')
    sensor_topics: tuple[str, ...] = setting(
        ('',), 'their topics, one a sensor, where they are named otherwise')
    depth_cameras: tuple[str, ...] = setting(
        ('',), 'those of the cameras that have a registered depth image, read from '
        '<camera>/depth/image_raw and published as points on <camera>/nightseg/points')
    depth_topics: tuple[str, ...] = setting(
        ('',), 'topics of the depth images, one a depth camera, where they are named otherwise')
    qos_reliability: str = setting(
        'auto', 'reliability of the subscriptions; auto does as each publisher does',
        choices=RELIABILITIES)
    transforms: tuple[str, ...] = setting(
        ('',), "transforms that win over tf: 'PARENT CHILD X Y Z ROLL PITCH YAW' or '... QX QY QZ "
        "QW' in metres and radians")
    use_tf: bool = setting(True, 'ask tf2 for the others, where installed')
    odometry: str = setting(
        '', "topic of the vehicle's poses, to compensate its motion between mask and cloud; '' "
        'for none')
    odometry_type: str = setting(ODOMETRY_TYPES[0], 'type of the poses', choices=ODOMETRY_TYPES)
    painting: PaintConfig = field(default_factory=PaintConfig)
    max_rate: float = live(
        0.0, 'clouds a second of each sensor to serve at most; 0 serves all', bounds=(0, 1000))
    silent_after: float = live(
        1.2, 'seconds without a cloud, or without a mask, after which that is reported',
        bounds=(0.1, 60))
    # fmt: on

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` where values contradict each other."""
        # the only way that a frozen dataclass has to tidy what it was given
        object.__setattr__(self, 'odometry', self.odometry.strip())
        object.__setattr__(self, 'transforms', tuple(_given(self.transforms)))
        # made here, so that what they refuse is refused now
        _ = self.paint, self.point_sources, self.calibration_topics
        try:
            for text in self.transforms:
                FrameTree().add_text(text)
        except CloudError as error:
            raise ConfigError(f"'transforms': {error}") from error

    @cached_property
    def paint(self) -> PaintConfig:
        """Return what the painter works by."""
        cameras = _names('cameras', self.cameras)
        if not cameras:
            raise ConfigError("'cameras' is empty; name at least one camera")
        return replace(self.painting, cameras=tuple(cameras), ego_motion=bool(self.odometry))

    @cached_property
    def point_sources(self) -> tuple[Sensor, ...]:
        """Return the LiDARs and depth cameras."""
        found: list[Sensor] = []
        kinds: tuple[tuple[Literal['cloud', 'depth'], str, str, str], ...] = (
            ('cloud', 'sensors', 'sensor_topics', 'points'),
            ('depth', 'depth_cameras', 'depth_topics', 'depth/image_raw'),
        )
        for kind, parameter, topics, last in kinds:
            names = _names(parameter, getattr(self, parameter))
            for name, topic in zip(names, _topics(topics, getattr(self, topics), names, last)):
                output = f'{name}/{NAMESPACE}'
                found.append(Sensor(name=name, topic=topic, output=output, kind=kind))
        strangers = {s.name for s in found if s.kind == 'depth'} - set(self.paint.cameras)
        if strangers:
            raise ConfigError(
                f"'depth_cameras' names {min(strangers)}, which is none of 'cameras': a depth "
                'image is registered to one of them'
            )
        if not found:
            raise ConfigError("'sensors' and 'depth_cameras' are both empty; name at least one")
        return tuple(found)

    @cached_property
    def calibration_topics(self) -> list[str]:
        """Return the topic of each camera's calibration, in the order of ``paint.cameras``."""
        return _topics('info_topics', self.info_topics, self.paint.cameras, 'camera_info')


PARAMETERS = table(Settings)
CLOUD_PARAMETERS = table(CloudSettings)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def unknown(overrides: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each override that no parameter takes, most often a misspelt one."""
    sentences = []
    for name in sorted(overrides):
        if name in known or name.startswith(_FOREIGN):
            continue
        sentences.append(
            f"parameter '{name}' is not known and has no effect{did_you_mean(name, known)}"
        )
    return sentences


def help_text(node: str) -> str:
    """Return what ``night_perception --help`` or ``semantic_cloud --help`` prints."""
    rows = CLOUD_PARAMETERS if node == 'semantic_cloud' else PARAMETERS
    lines = [
        f'usage: {node} [--ros-args -p NAME:=VALUE --params-file FILE ...]',
        '',
        f'A ROS 2 lifecycle node; config/{node}.yaml holds its parameters:',
        '',
    ]
    for row in rows:
        accepted = f' [{row.accepted}]' if row.accepted else ''
        head = f'{row.name} ({row.kind}, {row.plain_default!r}){accepted}'
        lines.append(textwrap.fill(head, 80, subsequent_indent='  '))
        lines.append(textwrap.fill(row.text, 80, initial_indent='    ', subsequent_indent='    '))
    return '\n'.join(lines)
