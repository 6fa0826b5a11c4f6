# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameter table as ROS parameters: declared, checked, and kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter as RosParameter

from nightseg_ros.config import ConfigError
from nightseg_ros.node.parameters import BY_NAME, PARAMETERS, Parameter
from nightseg_ros.node.settings import Settings
from nightseg_ros.weights import WeightsError

_TYPES = {
    'bool': RosParameter.Type.BOOL,
    'integer': RosParameter.Type.INTEGER,
    'double': RosParameter.Type.DOUBLE,
    'string': RosParameter.Type.STRING,
    'string array': RosParameter.Type.STRING_ARRAY,
}
#: Overrides that belong to rclpy and are no mistake.
_FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Return the row as ROS tools show it."""
    when = 'may change at run time' if parameter.dynamic else 'takes effect by configure'
    result = ParameterDescriptor(
        name=parameter.name,
        type=_TYPES[parameter.kind].value,
        description=f'{parameter.text} ({when})',
        additional_constraints=f'one of {parameter.range}' if parameter.choices else '',
    )
    if parameter.low is not None and parameter.high is not None:
        if parameter.kind == 'integer':
            bounds = IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))
            result.integer_range = [bounds]
        else:
            wide = FloatingPointRange(
                from_value=float(parameter.low), to_value=float(parameter.high)
            )
            result.floating_point_range = [wide]
    return result


class Declared:
    """
    The node's parameters.

    A value from a file or the command line that cannot be used does not end the process: the node
    stays unconfigured and says so until the parameter is set to one that can.
    """

    def __init__(self, node: Any) -> None:
        """Declare every row of the table on ``node``."""
        self._node = node
        self.problems: dict[str, str] = {}
        self.unknown = _unknown(node)
        for parameter in PARAMETERS:
            default = _plain(parameter.default)
            try:
                value = node.declare_parameter(
                    parameter.name, default, descriptor(parameter)
                ).value
                problem = None if value is None else parameter.problem(value)
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                given = node._parameter_overrides.get(parameter.name)
                problem = parameter.problem(given.value if given else None) or str(error)
                node.declare_parameter(
                    parameter.name, default, descriptor(parameter), ignore_override=True
                )
            if problem:
                self.problems[parameter.name] = problem
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)
        self.check_settings: Callable[[Settings], None] = lambda settings: None
        self.apply_settings: Callable[[Settings], None] = lambda settings: None
        self.configured: Callable[[], bool] = lambda: False

    def settings(self) -> Settings:
        """Return the values as settings; ``ConfigError`` names what cannot be used."""
        if self.problems:
            raise ConfigError('; '.join(self.problems.values()))
        return Settings.from_values(self._values())

    def value(self, name: str) -> Any:
        """Return one value; an array that a YAML file left empty is the default."""
        value = self._node.get_parameter(name).value
        return _plain(BY_NAME[name].default) if value is None else value

    def _values(self) -> dict[str, Any]:
        return {name: self.value(name) for name in BY_NAME}

    def _check(self, changes: Sequence[RosParameter]) -> SetParametersResult:
        """Refuse what cannot be used, with the reason; several are taken together or not."""
        ours = {change.name: change.value for change in changes if change.name in BY_NAME}
        try:
            for name, value in ours.items():
                problem = BY_NAME[name].problem(value)
                if problem:
                    raise ConfigError(problem)
                fixed = self.configured() and not BY_NAME[name].dynamic
                # a file of all parameters may be loaded again
                if fixed and value != self.value(name):
                    raise ConfigError(
                        f"parameter '{name}' takes effect by configure: clean the node up, "
                        'set it, and configure'
                    )
            left = self.problems.keys() - ours.keys()
            if ours and not left and self.configured():
                self.check_settings(Settings.from_values(self._values() | ours))
        except (ConfigError, WeightsError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: Sequence[RosParameter]) -> None:
        ours = [change.name for change in changes if change.name in BY_NAME]
        for name in ours:
            self.problems.pop(name, None)
        if ours and self.configured():
            self.apply_settings(self.settings())


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _unknown(node: Any) -> list[str]:
    """Return a sentence for each override that no parameter takes, most often a misspelt one."""
    sentences = []
    for name in sorted(node._parameter_overrides):
        if name in BY_NAME or name.startswith(_FOREIGN):
            continue
        close = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ''
        sentences.append(f"parameter '{name}' is not known and has no effect{hint}")
    return sentences
