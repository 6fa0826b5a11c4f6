# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A ROS parameter as a row of a table, and the parameters that a node declares by one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from nightseg_ros.weights import WeightsError

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
    def plain_default(self) -> Any:
        """The default as ROS and YAML have it, with a list for an array."""
        return list(self.default) if isinstance(self.default, tuple) else self.default

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


def check_values(parameters: Iterable[Parameter], values: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for the first value that its row refuses."""
    for parameter in parameters:
        problem = parameter.problem(values[parameter.name])
        if problem:
            raise ConfigError(problem)


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


class DeclaredParameters:
    """
    A node's parameters.

    A value from a file or the command line that cannot be used does not end the process: the node
    stays unconfigured and says so until the parameter is set to one that can.
    """

    def __init__(
        self, node: Any, parameters: Sequence[Parameter], build: Callable[[dict[str, Any]], Any]
    ) -> None:
        """
        Declare every row of the table on ``node``, a ``ManagedNode``.

        ``build`` makes the settings of every value by its name; it raises ``ConfigError``.
        """
        self._node = node
        self._build = build
        self._rows = {parameter.name: parameter for parameter in parameters}
        self.problems: dict[str, str] = {}
        # rclpy tells nobody which overrides no parameter took, nor the value that it refuses;
        # test_node_lifecycle.py has wrong and misspelt ones
        overrides = node._parameter_overrides
        self.unknown = _unknown(overrides, self._rows)
        for name, row in self._rows.items():
            try:
                value = node.declare_parameter(name, row.plain_default, descriptor(row)).value
                problem = None if value is None else row.problem(value)
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                given = overrides.get(name)
                problem = row.problem(given.value if given else None) or str(error)
                node.declare_parameter(
                    name, row.plain_default, descriptor(row), ignore_override=True
                )
            if problem:
                self.problems[name] = problem
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def settings(self) -> Any:
        """Return the values as settings; ``ConfigError`` names what cannot be used."""
        if self.problems:
            raise ConfigError('; '.join(self.problems.values()))
        return self._build(self._values())

    def value(self, name: str) -> Any:
        """Return one value; an array that a YAML file left empty is the default."""
        value = self._node.get_parameter(name).value
        return self._rows[name].plain_default if value is None else value

    def _values(self) -> dict[str, Any]:
        return {name: self.value(name) for name in self._rows}

    def _check(self, changes: Sequence[RosParameter]) -> SetParametersResult:
        """Refuse what cannot be used, with the reason; several are taken together or not."""
        ours = {change.name: change.value for change in changes if change.name in self._rows}
        configured = self._node.settings is not None
        try:
            for name, value in ours.items():
                row = self._rows[name]
                problem = row.problem(value)
                if problem:
                    raise ConfigError(problem)
                # a file of all parameters may be loaded again
                if configured and not row.dynamic and value != self.value(name):
                    raise ConfigError(
                        f"parameter '{name}' takes effect by configure: clean the node up, "
                        'set it, and configure'
                    )
            if ours and configured:
                self._node.check_settings(self._build(self._values() | ours))
        except (ConfigError, WeightsError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, changes: Sequence[RosParameter]) -> None:
        ours = [change.name for change in changes if change.name in self._rows]
        for name in ours:
            self.problems.pop(name, None)
        if ours and self._node.settings is not None:
            self._node.settings = self.settings()
            self._node.apply_settings()


def _unknown(overrides: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each override that no parameter takes, most often a misspelt one."""
    sentences = []
    for name in sorted(overrides):
        if name in known or name.startswith(_FOREIGN):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ''
        sentences.append(f"parameter '{name}' is not known and has no effect{hint}")
    return sentences
