# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameters' values, checked against each other and ready to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.occlusion import Occlusion
from nightseg_ros.clouds.painter import PaintConfig
from nightseg_ros.clouds.transform import FrameTree
from nightseg_ros.config import ConfigError
from nightseg_ros.node.clouds.parameters import PARAMETERS
from nightseg_ros.perception.naming import NAMESPACE


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
        values = {
            p.name: list(p.default) if isinstance(p.default, tuple) else p.default
            for p in PARAMETERS
        }
        values |= {name.replace('__', '.'): value for name, value in given.items()}
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CloudSettings:
        """
        Build from the value of every parameter by its name.

        ``ConfigError`` names the first value that is out of range or contradicts another.
        """
        for parameter in PARAMETERS:
            problem = parameter.problem(values[parameter.name])
            if problem:
                raise ConfigError(problem)
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


def _given(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _names(parameter: str, values: Mapping[str, Any]) -> list[str]:
    names = [name.rstrip('/') for name in _given(values[parameter])]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ConfigError(f"'{parameter}' names {doubles[0]} twice")
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
