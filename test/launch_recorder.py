# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The part of the launch API that the launch file uses, recording instead of launching.

No wheels exist for launch, so that this is what most machines can test the file against; the
tests with a real ``LaunchService`` keep the recorder honest where launch_ros is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, make_dataclass
from pathlib import Path
from runpy import run_path
import sys
import types
from typing import Any
from unittest import mock


def _kind(called: str, /, *required: str, **defaults: Any) -> Any:
    """Return a class with these fields; it takes no others."""
    optional = [(key, Any, field(default=value)) for key, value in defaults.items()]
    return make_dataclass(called, [*required, *optional])


LaunchDescription = _kind('LaunchDescription', 'entities')
DeclareLaunchArgument = _kind(
    'DeclareLaunchArgument', 'name', default_value=None, description=None
)
OpaqueFunction = _kind('OpaqueFunction', 'function', args=())
LogInfo = _kind('LogInfo', 'msg')
SetLaunchConfiguration = _kind('SetLaunchConfiguration', 'name', 'value')
IncludeLaunchDescription = _kind('IncludeLaunchDescription', 'source')
PythonLaunchDescriptionSource = _kind('PythonLaunchDescriptionSource', 'path')
TimerAction = _kind('TimerAction', 'period', 'actions')
ParameterValue = _kind('ParameterValue', 'value', value_type=None)
ProcessExited = _kind('ProcessExited', 'returncode')


_Node = _kind(
    'Node', 'executable', package=None, name=None, namespace=None, parameters=(), remappings=(),
    arguments=(), ros_arguments=(), output='log', on_exit=None,
)  # fmt: skip


class Node(_Node):
    """A node that is to be started."""

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


class Context:
    """The context of a launch; a test turns its clock ``now`` by hand."""

    def __init__(self, configurations: dict[str, str]) -> None:
        self.launch_configurations = configurations
        self.now, self.is_shutdown = 0.0, False
        self.asyncio_loop = types.SimpleNamespace(time=lambda: self.now)


class Recording:
    """A launch file, executed: its arguments, and the actions that given values lead to."""

    def __init__(self, path: Path) -> None:
        with _recorder_in_place():
            self.description = run_path(str(path))['generate_launch_description']()

    @property
    def arguments(self) -> dict[str, Any]:
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
        'launch.actions': [
            DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction,
            SetLaunchConfiguration, TimerAction,
        ],
        'launch.launch_description_sources': [PythonLaunchDescriptionSource],
        'launch_ros': [],
        'launch_ros.actions': [Node],
        'launch_ros.parameter_descriptions': [ParameterValue],
    }  # fmt: skip
    with mock.patch.dict(sys.modules):
        for name, classes in places.items():
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update({cls.__name__: cls for cls in classes})
        yield
