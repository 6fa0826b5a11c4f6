# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every parameter of night_perception, in one table.

The table yields the ROS descriptors, ``config/night_perception.yaml`` and the README's table:
``python -m nightseg_ros.node.parameters yaml`` and ``... markdown`` print the last two.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nightseg_ros.config import to_mapping
from nightseg_ros.perception.pipeline_config import PipelineConfig
from nightseg_ros.perception.router import ROUTES
from nightseg_ros.runtime.backend import BACKENDS

Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One row: the type is that of the default, ``('',)`` being an empty list of strings."""

    name: str
    default: Value
    text: str
    dynamic: bool = False
    """Whether it may change while the node is configured; the others wait for a configure."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The ROS name of its type."""
        kinds = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
        return kinds.get(type(self.default), 'string array')

    @property
    def range(self) -> str:
        """The accepted values in words, '' where every value of the type is."""
        if self.choices:
            return ', '.join(self.choices)
        return '' if self.low is None or self.high is None else f'{self.low:g} to {self.high:g}'

    def problem(self, value: Any) -> str | None:
        """Return why ``value`` is refused, None where it is fine."""
        wanted = list if self.kind == 'string array' else type(self.default)
        # bool is an int to Python
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            return f"parameter '{self.name}' must be a {self.kind}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"parameter '{self.name}' must be one of {self.range}; got '{value}'"
        if self.low is not None and self.high is not None:
            # written so that NaN is refused, too
            assert isinstance(value, (int, float))
            if not self.low <= value <= self.high or not math.isfinite(value):
                return f"parameter '{self.name}' must be {self.range}, got {value}"
        return None


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

_HEAD = """\
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Every parameter of {node} with its default. Those marked (dynamic) may be set while
# the node runs, the others while it is unconfigured. Written by
# `python -m nightseg_ros.node.{module} yaml`.
/**:
  ros__parameters:
"""


def yaml_text(
    parameters: Sequence[Parameter] = PARAMETERS,
    node: str = 'night_perception',
    module: str = 'parameters',
) -> str:
    """Return the YAML file of a table; ``module`` is where it stands."""
    lines: list[str] = []
    group: list[str] = []
    for parameter in parameters:
        *path, leaf = parameter.name.split('.')
        shared = 0
        while shared < min(len(path), len(group)) and path[shared] == group[shared]:
            shared += 1
        for depth in range(shared, len(path)):
            lines.append(f'{_indent(depth)}{path[depth]}:')
        group = path
        bounds = f' [{parameter.range}]' if parameter.range else ''
        dynamic = ' (dynamic)' if parameter.dynamic else ''
        lines += _wrapped(f'{parameter.text}{bounds}{dynamic}', f'{_indent(len(path))}# ')
        lines.append(f'{_indent(len(path))}{leaf}: {_literal(parameter.default)}')
    return _HEAD.format(node=node, module=module) + '\n'.join(lines) + '\n'


def markdown(parameters: Sequence[Parameter] = PARAMETERS) -> str:
    """Return a table as documents show it."""
    rows = [
        '| Parameter | Type | Default | Accepted | Changes at run time | Meaning |',
        '|---|---|---|---|---|---|',
    ]
    for p in parameters:
        dynamic = 'yes' if p.dynamic else 'by configure'
        # GitHub would take <camera> for a tag and drop it
        text = p.text.replace('<', '&lt;')
        rows.append(
            f'| `{p.name}` | {p.kind} | `{_literal(p.default)}` | {p.range or "any"} | {dynamic} '
            f'| {text} |'
        )
    return '\n'.join(rows) + '\n'


def _indent(depth: int) -> str:
    return ' ' * (4 + 2 * depth)


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, tuple):
        return '[' + ', '.join(_literal(item) for item in value) + ']'
    return repr(value) if isinstance(value, float) or value == '' else str(value)


def _wrapped(text: str, prefix: str) -> list[str]:
    return textwrap.wrap(text, 99, initial_indent=prefix, subsequent_indent=prefix)


if __name__ == '__main__':
    if sys.argv[1:] not in (['yaml'], ['markdown']):
        sys.exit('usage: python -m nightseg_ros.node.parameters yaml|markdown')
    sys.stdout.write(yaml_text() if sys.argv[1] == 'yaml' else markdown())
