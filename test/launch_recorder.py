# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The part of the launch API that the launch file uses, recording instead of launching.

No wheels exist for launch, so that this is what most machines can test the file against; the
tests with a real ``LaunchService`` keep the recorder honest where launch_ros is installed.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class LaunchDescription:
    entities: list[Any]


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str | None = None
    description: str | None = None


@dataclass(kw_only=True)
class OpaqueFunction:
    function: Callable[..., Any]
    args: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class LogInfo:
    msg: str


@dataclass(kw_only=True)
class TimerAction:
    period: float
    actions: list[Any]


@dataclass
class ParameterValue:
    value: Any
    value_type: Any = None


@dataclass(kw_only=True)
class Node:
    executable: str
    package: str | None = None
    name: str | None = None
    namespace: str | None = None
    parameters: list[Any] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    ros_arguments: list[str] = field(default_factory=list)
    additional_env: dict[str, str] = field(default_factory=dict)
    output: str = 'log'
    on_exit: Callable[..., Any] | None = None

    def overrides(self) -> dict[str, Any]:
        """Return the parameters given one by one, not by file."""
        merged: dict[str, Any] = {}
        for item in self.parameters:
            if isinstance(item, Mapping):
                merged.update(item)
        return {k: v.value if isinstance(v, ParameterValue) else v for k, v in merged.items()}

    def parameter_files(self) -> list[Path]:
        """Return the parameter files in the order in which they apply."""
        return [Path(item) for item in self.parameters if not isinstance(item, Mapping)]


class Clock:
    """Stands in for the event loop of launch: a clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


@dataclass
class Context:
    launch_configurations: dict[str, str]
    asyncio_loop: Clock = field(default_factory=Clock)
    is_shutdown: bool = False


@dataclass
class ProcessExited:
    returncode: int


class Recording:
    """A launch file, executed: its arguments, and the actions that given values lead to."""

    def __init__(self, path: Path) -> None:
        with _recorder_in_place():
            module = types.ModuleType('recorded_launch_file')
            module.__file__ = str(path)
            exec(compile(path.read_text(), str(path), 'exec'), module.__dict__)
        self.description: LaunchDescription = module.generate_launch_description()

    @property
    def arguments(self) -> dict[str, DeclareLaunchArgument]:
        entities = self.description.entities
        return {e.name: e for e in entities if isinstance(e, DeclareLaunchArgument)}

    def context(self, **given: str) -> Context:
        """Return a launch context that holds the defaults and the given values."""
        unknown = set(given) - set(self.arguments)
        if unknown:
            raise KeyError(f'the launch file declares no {sorted(unknown)}')
        defaults = {name: a.default_value or '' for name, a in self.arguments.items()}
        return Context({**defaults, **given})

    def actions(self, context: Context) -> list[Any]:
        """Return what the launch file starts in ``context``, opaque functions called."""
        entities = self.description.entities
        return expand([e for e in entities if not isinstance(e, DeclareLaunchArgument)], context)

    def nodes(self, **given: str) -> dict[str, Node]:
        """Return the nodes by the name of their executable."""
        actions = self.actions(self.context(**given))
        return {Path(a.executable).name: a for a in actions if isinstance(a, Node)}


def expand(entities: list[Any] | None, context: Context) -> list[Any]:
    """Call every opaque function among ``entities``, and those that they return."""
    actions: list[Any] = []
    for entity in entities or []:
        if isinstance(entity, OpaqueFunction):
            actions += expand(entity.function(context, *entity.args), context)
        else:
            actions.append(entity)
    return actions


@contextmanager
def _recorder_in_place() -> Iterator[None]:
    """Let ``import launch`` find this file's classes, in the modules that have them."""
    places = {
        'launch': [LaunchDescription],
        'launch.actions': [DeclareLaunchArgument, LogInfo, OpaqueFunction, TimerAction],
        'launch_ros': [],
        'launch_ros.actions': [Node],
        'launch_ros.parameter_descriptions': [ParameterValue],
    }
    before = {name: sys.modules.get(name) for name in places}
    for name, classes in places.items():
        module = types.ModuleType(name)
        for cls in classes:
            assert inspect.isclass(cls)
            setattr(module, cls.__name__, cls)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
