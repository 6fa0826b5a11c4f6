# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameters' values, checked against each other and ready to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nightseg_ros.config import ConfigError, from_mapping
from nightseg_ros.node.parameters import BY_NAME, PIPELINE_NAMES
from nightseg_ros.node.watchdog import Patience
from nightseg_ros.perception.naming import NAMESPACE, output_prefixes
from nightseg_ros.perception.pipeline_config import PipelineConfig


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
    patience: Patience
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
        for name, value in values.items():
            problem = BY_NAME[name].problem(value)
            if problem:
                raise ConfigError(problem)
        nested: dict[str, Any] = {}
        for name in PIPELINE_NAMES:
            *path, leaf = name.split('.')
            place = nested
            for part in path:
                place = place.setdefault(part, {})
            place[leaf] = values[name]
        transport = values['transport']
        return cls(
            cameras=_cameras(
                _given(values['cameras']),
                _given(values['image_topics']),
                [mask.strip() for mask in values['ego_masks']],
                transport,
            ),
            transport=transport,
            qos_reliability=values['qos_reliability'],
            label_size=values['label_size'],
            max_rate=values['max_rate'],
            max_age=values['max_age'],
            silent_after=values['silent_after'],
            patience=Patience(batch=values['watchdog_s'], load=values['watchdog_load_s']),
            cpu_fallback=values['cpu_fallback'],
            min_reliability=values['min_reliability'],
            jpeg_quality=values['jpeg_quality'],
            pipeline=from_mapping(PipelineConfig, nested),
        )


def _given(texts: list[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip()]


def _cameras(
    names: list[str], topics: list[str], masks: list[str], transport: str
) -> tuple[CameraNames, ...]:
    """Pair names, topics and masks; ``ConfigError`` where they do not fit together."""
    outputs = [f'{name.rstrip("/")}/{NAMESPACE}' for name in names]
    if not topics:
        topics = [f'{name}/image_raw' for name in names]
    elif names == list(BY_NAME['cameras'].default):  # type: ignore[arg-type]
        outputs = output_prefixes(topics)
        names = [output.removesuffix(f'/{NAMESPACE}').strip('/') for output in outputs]
    if not topics:
        raise ConfigError("'cameras' and 'image_topics' are both empty; name at least one camera")
    if len(names) != len(topics):
        raise ConfigError(
            f"'cameras' names {len(names)} and 'image_topics' {len(topics)}; one of each a camera"
        )
    for kind, items in (('cameras', names), ('image_topics', topics)):
        doubles = sorted({item for item in items if items.count(item) > 1})
        if doubles:
            raise ConfigError(f"'{kind}' names {doubles[0]} twice")
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
                image_topic=f'{stem}/compressed' if transport == 'compressed' else topic,
                # where image_transport puts it
                info_topic=f'{parent}/camera_info' if '/' in stem else 'camera_info',
                output=output,
                ego_mask=mask,
            )
        )
    return tuple(cameras)
