# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameter table as ROS parameters: declared, checked, and kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
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
from nightseg_ros.node.parameters import Parameter
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
    A node's parameters.

    A value from a file or the command line that cannot be used does not end the process: the node
    stays unconfigured and says so until the parameter is set to one that can.
    """

    def __init__(
        self, node: Any, parameters: Sequence[Parameter], build: Callable[[dict[str, Any]], Any]
    ) -> None:
        """
        Declare every row of the table on ``node``.

        ``build`` makes the settings of every value by its name; it raises ``ConfigError``.
        """
        self._node = node
        self._build = build
        self._rows = {parameter.name: parameter for parameter in parameters}
        self.problems: dict[str, str] = {}
        self.unknown = _unknown(node, self._rows)
        for parameter in parameters:
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
        self.check_settings: Callable[[Any], None] = lambda settings: None
        self.apply_settings: Callable[[Any], None] = lambda settings: None
        self.configured: Callable[[], bool] = lambda: False

    def settings(self) -> Any:
        """Return the values as settings; ``ConfigError`` names what cannot be used."""
        if self.problems:
            raise ConfigError('; '.join(self.problems.values()))
        return self._build(self._values())

    def value(self, name: str) -> Any:
        """Return one value; an array that a YAML file left empty is the default."""
        value = self._node.get_parameter(name).value
        return _plain(self._rows[name].default) if value is None else value

    def _values(self) -> dict[str, Any]:
        return {name: self.value(name) for name in self._rows}

    def _check(self, changes: Sequence[RosParameter]) -> SetParametersResult:
        """Refuse what cannot be used, with the reason; several are taken together or not."""
        ours = {change.name: change.value for change in changes if change.name in self._rows}
        try:
            for name, value in ours.items():
                problem = self._rows[name].problem(value)
                if problem:
                    raise ConfigError(problem)
                fixed = self.configured() and not self._rows[name].dynamic
                # a file of all parameters may be loaded again
                if fixed and value != self.value(name):
                    raise ConfigError(
                        f"parameter '{name}' takes effect by configure: clean the node up, "
                        'set it, and configure'
                    )
            left = self.problems.keys() - ours.keys()
            if ours and not left and self.configured():
                self.check_settings(self._build(self._values() | ours))
        except (ConfigError, WeightsError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: Sequence[RosParameter]) -> None:
        ours = [change.name for change in changes if change.name in self._rows]
        for name in ours:
            self.problems.pop(name, None)
        if ours and self.configured():
            self.apply_settings(self.settings())


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _unknown(node: Any, known: Mapping[str, Parameter]) -> list[str]:
    """Return a sentence for each override that no parameter takes, most often a misspelt one."""
    sentences = []
    for name in sorted(node._parameter_overrides):
        if name in known or name.startswith(_FOREIGN):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ''
        sentences.append(f"parameter '{name}' is not known and has no effect{hint}")
    return sentences
