# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every parameter of night_perception and semantic_cloud: the tables, and the settings they make.

``python bench/node_tables.py`` writes ``config/*.yaml`` and the tables of the documents from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nightseg_ros.clouds.geometry import CloudError, FrameTree
from nightseg_ros.clouds.painter import Occlusion, PaintConfig
from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.node.declaration import Parameter, check_values
from nightseg_ros.node.watchdog import Timeouts
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.perception.result import NAMESPACE, output_prefixes
from nightseg_ros.perception.router import ROUTES
from nightseg_ros.runtime.backend import BACKENDS


def _flat(nested: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


_PIPELINE = _flat(to_mapping(PipelineConfig()))


def _pipeline(name: str, text: str, **more: Any) -> Parameter:
    """Return the row of a field of ``PipelineConfig``, whose default it takes."""
    return Parameter(name=name, default=_PIPELINE[name], text=text, **more)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name='autostart', default=True,
              text='configure and activate without being asked; false waits for a lifecycle '
                   'manager'),
    Parameter(name='cameras', default=('camera',),
              text='cameras, each read from <camera>/image_raw and published under '
                   '<camera>/nightseg/'),
    Parameter(name='image_topics', default=('',),
              text='image topics instead, one a camera; without cameras of your own, each camera '
                   'is called as its topic without the last part'),
    Parameter(name='transport', default='raw', choices=('raw', 'compressed'),
              text='read sensor_msgs/Image, or CompressedImage from <topic>/compressed'),
    Parameter(name='qos_reliability', default='auto', choices=('auto', 'reliable', 'best_effort'),
              text='reliability of the image subscriptions; auto does as the publisher does'),
    _pipeline('route', 'network to take: by illumination, or always the same', dynamic=True,
              choices=('auto', *ROUTES)),
    Parameter(name='max_rate', default=0.0, low=0, high=1000, dynamic=True,
              text='frames a second of each camera to serve at most; 0 serves all'),
    Parameter(name='max_age', default=0.0, low=0, high=3600, dynamic=True,
              text='drop frames whose stamp is older than this many seconds; 0 drops none (a bag '
                   'without use_sim_time is years old)'),
    Parameter(name='silent_after', default=1.2, low=0.1, high=60, dynamic=True,
              text='seconds without a frame after which a camera is reported as silent'),
    Parameter(name='watchdog_s', default=30.0, low=1, high=3600, dynamic=True,
              text='seconds after which a batch, or a callback, that has not come back ends the '
                   'process with code 1, for the launch file to bring it back'),
    Parameter(name='watchdog_load_s', default=600.0, low=1, high=3600, dynamic=True,
              text='the same while networks are loaded, or made ready for a new size of image'),
    Parameter(name='min_reliability', default=0.65, low=0, high=1, dynamic=True,
              text='a camera whose frames have a lower reliability than this is reported as one '
                   'that cannot see; its masks are published all the same'),
    Parameter(name='label_size', default='camera', choices=('camera', 'network'),
              text='size of labels and confidence: that of the image, or the smaller one of the '
                   'network'),
    Parameter(name='ego_masks', default=('',),
              text='image files, one a camera, non-zero where the own vehicle is seen: those '
                   "pixels become 255; '' for none"),
    _pipeline('overlay_alpha', 'share of the colours in the overlay', dynamic=True, low=0, high=1),
    _pipeline('overlay_route', 'write state and route into a corner of the overlay', dynamic=True),
    Parameter(name='jpeg_quality', default=90, low=1, high=100, dynamic=True,
              text='quality of overlay/compressed'),
    _pipeline('weights.day', "segmenter of the routes day and translate: name or path; '' none"),
    _pipeline('weights.night', "segmenter of the route night: name or path; '' none"),
    _pipeline('weights.translator', "night-to-day generator of the route translate; '' none"),
    _pipeline('weights.illumination', 'estimator of the light: name or path'),
    _pipeline('backend', 'what runs the networks', choices=('auto', *BACKENDS)),
    _pipeline('device', 'where they run', choices=('auto', 'cpu', 'cuda')),
    Parameter(name='cpu_fallback', default=True, dynamic=True,
              text="run the networks on the CPU where the device's memory does not suffice for "
                   'a single frame'),
    _pipeline('threads', 'CPU threads of the backend; 0 leaves it the choice', low=0, high=256),
    _pipeline('long_side', 'long side of the network input in pixels; 0 takes that of the weights',
              low=0, high=4096),
    _pipeline('router.dark', 'night below this score (0 dark, 1 daylight)', dynamic=True,
              low=0, high=1),
    _pipeline('router.bright', 'day above this score; dusk lies between', dynamic=True,
              low=0, high=1),
    _pipeline('router.hysteresis', 'how far beyond its threshold a score must be to leave a state',
              dynamic=True, low=0, high=1),
    _pipeline('router.dwell_dark_s', 'seconds that a darker state must last to count',
              dynamic=True, low=0, high=600),
    _pipeline('router.dwell_bright_s', 'seconds that a brighter state must last to count',
              dynamic=True, low=0, high=600),
    _pipeline('router.gap_s', 'seconds without a frame after which the next one decides afresh',
              dynamic=True, low=0, high=3600),
    _pipeline('router.shared', 'one decision for all cameras of the vehicle', dynamic=True),
    _pipeline('router.stale_s', 'with router.shared: seconds after which a score has no say',
              dynamic=True, low=0, high=60),
    *(_pipeline(f'router.table.{state}', f'route when it is {state}', dynamic=True, choices=ROUTES)
      for state in ('day', 'dusk', 'night', 'glare')),
)  # fmt: skip

BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
#: The rows that are fields of ``PipelineConfig``, under the same dotted name.
PIPELINE_NAMES = frozenset(_PIPELINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraNames:
    """Where one camera is read and published; names are relative unless the user's are not."""

    name: str
    image_topic: str
    info_topic: str
    output: str
    """Prefix of the output topics, without a slash at its end."""
    ego_mask: str = ''


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the node works by; see ``parameters.PARAMETERS`` for each meaning and unit."""

    cameras: tuple[CameraNames, ...]
    transport: Literal['raw', 'compressed']
    qos_reliability: Literal['auto', 'reliable', 'best_effort']
    label_size: Literal['camera', 'network']
    max_rate: float
    max_age: float
    silent_after: float
    timeouts: Timeouts
    cpu_fallback: bool
    min_reliability: float
    jpeg_quality: int
    pipeline: PipelineConfig

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """
        Build from the value of every parameter by its name.

        ``ConfigError`` names the first value that is out of range or contradicts another.
        """
        check_values(PARAMETERS, values)
        nested: dict[str, Any] = {}
        for name in PIPELINE_NAMES:
            *path, leaf = name.split('.')
            place = nested
            for part in path:
                place = place.setdefault(part, {})
            place[leaf] = values[name]
        as_they_are = (
            'transport', 'qos_reliability', 'label_size', 'max_rate', 'max_age', 'silent_after',
            'cpu_fallback', 'min_reliability', 'jpeg_quality',
        )  # fmt: skip
        return cls(
            cameras=_cameras(values),
            timeouts=Timeouts(batch=values['watchdog_s'], load=values['watchdog_load_s']),
            pipeline=from_mapping(PipelineConfig, nested),
            **{name: values[name] for name in as_they_are},
        )


def _cameras(values: Mapping[str, Any]) -> tuple[CameraNames, ...]:
    """Pair names, topics and masks; ``ConfigError`` where they do not fit together."""
    names, topics = _given(values['cameras']), _given(values['image_topics'])
    outputs = [f'{name.rstrip("/")}/{NAMESPACE}' for name in names]
    if not topics:
        topics = [f'{name}/image_raw' for name in names]
    elif names == BY_NAME['cameras'].plain_default:
        outputs = output_prefixes(topics)
        names = [output.removesuffix(f'/{NAMESPACE}').strip('/') for output in outputs]
    if not topics:
        raise ConfigError("'cameras' and 'image_topics' are both empty; name at least one camera")
    if len(names) != len(topics):
        raise ConfigError(
            f"'cameras' names {len(names)} and 'image_topics' {len(topics)}; one of each a camera"
        )
    _refuse_doubles('cameras', names)
    _refuse_doubles('image_topics', topics)
    masks = [mask.strip() for mask in values['ego_masks']]
    masks = masks if any(masks) else [''] * len(names)
    if len(masks) != len(names):
        raise ConfigError(
            f"'ego_masks' has {len(masks)} files for {len(names)} cameras; give one a camera, "
            "'' for none"
        )
    cameras = []
    for name, topic, output, mask in zip(names, topics, outputs, masks):
        stem = topic.removesuffix('/compressed')
        parent = stem.rpartition('/')[0]
        cameras.append(
            CameraNames(
                name=name,
                image_topic=f'{stem}/compressed' if values['transport'] == 'compressed' else topic,
                # where image_transport puts it
                info_topic=f'{parent}/camera_info' if '/' in stem else 'camera_info',
                output=output,
                ego_mask=mask,
            )
        )
    return tuple(cameras)


def _given(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _refuse_doubles(parameter: str, names: Sequence[str]) -> None:
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ConfigError(f"'{parameter}' names {doubles[0]} twice")


ODOMETRY_TYPES = ('nav_msgs/Odometry', 'geometry_msgs/PoseStamped')
_DEFAULT = PaintConfig(cameras=())

CLOUD_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name='autostart', default=True,
              text='configure and activate without being asked; false waits for a lifecycle '
                   'manager'),
    Parameter(name='cameras', default=('camera',),
              text='cameras whose labels are read from <camera>/nightseg/labels; of equal '
                   'confidence the first wins'),
    Parameter(name='info_topics', default=('',),
              text="topics of the cameras' calibration, one a camera, where it is not "
                   '<camera>/camera_info'),
    Parameter(name='sensors', default=('lidar',),
              text='LiDARs, each read from <sensor>/points and published on '
                   '<sensor>/nightseg/points'),
    Parameter(name='sensor_topics', default=('',),
              text='their topics, one a sensor, where they are named otherwise'),
    Parameter(name='depth_cameras', default=('',),
              text='those of the cameras that have a registered depth image, read from '
                   '<camera>/depth/image_raw and published as points on <camera>/nightseg/points'),
    Parameter(name='depth_topics', default=('',),
              text='topics of the depth images, one a depth camera, where they are named '
                   'otherwise'),
    Parameter(name='confidence', default=_DEFAULT.confidence,
              text='read <camera>/nightseg/confidence as well; without it the order of the '
                   'cameras decides'),
    Parameter(name='rectified', default=_DEFAULT.rectified,
              text='the labels are of rectified images: P of the calibration counts, without '
                   'distortion'),
    Parameter(name='qos_reliability', default='auto', choices=('auto', 'reliable', 'best_effort'),
              text='reliability of the subscriptions; auto does as each publisher does'),
    Parameter(name='transforms', default=('',),
              text="places that count before tf: 'PARENT CHILD X Y Z ROLL PITCH YAW' or '... QX "
                   "QY QZ QW' in metres and radians"),
    Parameter(name='use_tf', default=True, text='ask tf2 for the other places, where installed'),
    Parameter(name='odometry', default='',
              text="topic of the vehicle's poses, to make good what it moved between mask and "
                   "cloud; '' for none"),
    Parameter(name='odometry_type', default=ODOMETRY_TYPES[0], choices=ODOMETRY_TYPES,
              text='type of the poses'),
    Parameter(name='base_frame', default=_DEFAULT.base_frame,
              text='frame that the poses are those of'),
    Parameter(name='pair_limit', default=_DEFAULT.pair_limit, low=0, high=10,
              text='seconds by which the stamps of a mask and a cloud may differ'),
    Parameter(name='max_wait', default=_DEFAULT.max_wait, low=0, high=10,
              text='seconds that a cloud waits for masks as new as itself'),
    Parameter(name='occlusion.cell', default=_DEFAULT.occlusion.cell, low=0, high=200,
              dynamic=True,
              text='side of a cell of the z-buffer in pixels, about the distance of two points '
                   'in the image; 0 hides nothing'),
    Parameter(name='occlusion.clearance', default=_DEFAULT.occlusion.clearance, low=0.01,
              high=100, dynamic=True,
              text='surfaces that pass the camera closer than this (m) may hide parts of '
                   'themselves'),
    Parameter(name='max_rate', default=0.0, low=0, high=1000, dynamic=True,
              text='clouds a second of each sensor to serve at most; 0 serves all'),
    Parameter(name='silent_after', default=1.2, low=0.1, high=60, dynamic=True,
              text='seconds without a cloud, or without a mask, after which that is reported'),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """Where points come from and go to; names are relative unless the user's are not."""

    name: str
    topic: str
    output: str
    kind: Literal['cloud', 'depth']


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudSettings:
    """What the node works by; see ``parameters.PARAMETERS`` for each meaning and unit."""

    sensors: tuple[Sensor, ...]
    info_topics: tuple[str, ...]
    """One a camera of ``paint``."""
    transforms: tuple[str, ...]
    use_tf: bool
    odometry: str
    odometry_type: str
    qos_reliability: Literal['auto', 'reliable', 'best_effort']
    max_rate: float
    silent_after: float
    paint: PaintConfig

    @classmethod
    def of(cls, **given: Any) -> CloudSettings:
        """Build from the values that are not the defaults; names with ``__`` for a point."""
        values = {row.name: row.plain_default for row in CLOUD_PARAMETERS}
        values |= {name.replace('__', '.'): value for name, value in given.items()}
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CloudSettings:
        """
        Build from the value of every parameter by its name.

        ``ConfigError`` names the first value that is out of range or contradicts another.
        """
        check_values(CLOUD_PARAMETERS, values)
        cameras = _names('cameras', values)
        depth_cameras = _names('depth_cameras', values)
        if not cameras:
            raise ConfigError("'cameras' is empty; name at least one camera")
        strangers = [name for name in depth_cameras if name not in cameras]
        if strangers:
            raise ConfigError(
                f"'depth_cameras' names {strangers[0]}, which is none of 'cameras': a depth image "
                'is registered to one of them'
            )
        transforms = tuple(_given(values['transforms']))
        try:
            for text in transforms:
                FrameTree().add_text(text)
        except CloudError as error:
            raise ConfigError(f"'transforms': {error}") from error
        sensors = [
            *_sensors('cloud', _names('sensors', values), values['sensor_topics'], 'points'),
            *_sensors('depth', depth_cameras, values['depth_topics'], 'depth/image_raw'),
        ]
        if not sensors:
            raise ConfigError("'sensors' and 'depth_cameras' are both empty; name at least one")
        doubles = [s.output for s in sensors if [t.output for t in sensors].count(s.output) > 1]
        if doubles:
            raise ConfigError(f"'sensors' and 'depth_cameras' both lead to {doubles[0]}/points")
        infos = _topics('info_topics', values['info_topics'], cameras, 'camera_info')
        return cls(
            sensors=tuple(sensors), info_topics=tuple(infos), transforms=transforms,
            use_tf=values['use_tf'], odometry=values['odometry'].strip(),
            odometry_type=values['odometry_type'], qos_reliability=values['qos_reliability'],
            max_rate=values['max_rate'], silent_after=values['silent_after'],
            paint=PaintConfig(
                cameras=tuple(cameras), pair_limit=values['pair_limit'],
                max_wait=values['max_wait'], confidence=values['confidence'],
                rectified=values['rectified'], ego_motion=bool(values['odometry'].strip()),
                base_frame=values['base_frame'],
                occlusion=Occlusion(cell=values['occlusion.cell'],
                                    clearance=values['occlusion.clearance']),
            ),
        )  # fmt: skip


def _names(parameter: str, values: Mapping[str, Any]) -> list[str]:
    names = [name.rstrip('/') for name in _given(values[parameter])]
    _refuse_doubles(parameter, names)
    return names


def _topics(parameter: str, given: Sequence[str], names: list[str], last: str) -> list[str]:
    """Return a topic for each name: the given ones, or NAME/last."""
    topics = _given(given) or [f'{name}/{last}' for name in names]
    if len(topics) != len(names):
        raise ConfigError(
            f"'{parameter}' has {len(topics)} topics for {len(names)} names; give one each or none"
        )
    return topics


def _sensors(
    kind: Literal['cloud', 'depth'], names: list[str], given: Sequence[str], last: str
) -> list[Sensor]:
    parameter = 'sensor_topics' if kind == 'cloud' else 'depth_topics'
    topics = _topics(parameter, given, names, last)
    return [
        Sensor(name=name, topic=topic, output=f'{name}/{NAMESPACE}', kind=kind)
        for name, topic in zip(names, topics)
    ]
