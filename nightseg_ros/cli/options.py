# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What verbs share: flags from dataclasses, whose docstrings are the help; what is printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
import dataclasses
from dataclasses import dataclass
import logging
from pathlib import Path
import re
import signal
import sys
from typing import Any, Literal, TYPE_CHECKING, TypeVar

from nightseg_ros.config import ConfigError, did_you_mean, from_mapping, read_yaml
from nightseg_ros.files import LOG
from rich import progress as bars
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
)

if TYPE_CHECKING:
    from nightseg_ros.perception.pipeline import PipelineConfig, WeightsConfig

T = TypeVar('T')
AnyBackend = Literal['auto', 'torch', 'onnxruntime', 'openvino', 'openvino-bf16', 'tensorrt']


class OptionError(Exception):
    """Options that a verb refuses; no ``ValueError``, which tyro would print in a box."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOptions:
    """Flags of every verb that loads the pipeline's networks."""

    weights_day: str = 'day'
    """Weights of the route 'day': a file, or the name of a shipped one."""
    weights_night: str = 'night'
    """Weights of the route 'night'."""
    weights_translator: str = 'translator'
    """Night-to-day generator of the route 'translate'; '' for none."""
    weights_illumination: str = 'illumination'
    """Weights that tell day from night."""

    def weights_config(self) -> WeightsConfig:
        from nightseg_ros.perception.pipeline import WeightsConfig

        names = (field.name for field in dataclasses.fields(WeightsConfig))
        return WeightsConfig(**{name: getattr(self, f'weights_{name}') for name in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineOptions(WeightsOptions):
    """Flags of every verb that runs the pipeline; they are the node's parameters of that name."""

    route: Literal['auto', 'day', 'night', 'translate'] = 'auto'
    """'auto' follows the illumination; the others are always taken."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where the networks run."""
    backend: AnyBackend = 'auto'
    """What runs the networks."""
    long_side: int = 0
    """Long side of the networks' input in pixels; 0: what the weights were trained at."""

    def pipeline_config(self, **more: Any) -> PipelineConfig:
        """Return the settings as the pipeline takes them; ``ConfigError`` for one out of range."""
        from nightseg_ros.perception.pipeline import PipelineConfig

        names = ('route', 'device', 'backend', 'long_side')
        values = {name: getattr(self, name) for name in names}
        return from_mapping(PipelineConfig, {**values, 'weights': self.weights_config(), **more})


_RULES = ConstructorRegistry()
_in_default: list[Any] = []


def _default(get_spec: Callable[[Any], Any], info: Any) -> Any:
    """Return the spec of tyro's own rules; None to the call that comes from there."""
    if any(info is pending for pending in _in_default):
        return None
    _in_default.append(info)
    try:
        return get_spec(info)
    finally:
        _in_default.pop()


@_RULES.struct_rule
def _checked(info: Any) -> Any:
    """Raise ``OptionError`` for values that a dataclass refuses."""
    spec = _default(ConstructorRegistry.get_struct_spec, info)
    if not isinstance(spec, StructConstructorSpec) or not dataclasses.is_dataclass(info.type):
        return spec

    def instantiate(**values: Any) -> Any:
        try:
            return spec.instantiate(**values)
        except ValueError as error:
            raise OptionError(str(error)) from error

    # the help of the verb
    instantiate.__doc__ = info.type.__doc__
    return dataclasses.replace(spec, instantiate=instantiate)


@_RULES.primitive_rule
def _short_metavar(info: Any) -> Any:
    """
    Write NAME ... and NAME into the help for tyro's [NAME [NAME ...]] and {None}|NAME.

    Values that do not fit are told in these words, choices with the nearest.
    """
    spec = _default(ConstructorRegistry.get_primitive_spec, info)
    if not isinstance(spec, PrimitiveConstructorSpec):
        return spec
    metavar = re.sub(r'\[(.+) \[\1 \.\.\.\]\]', r'\1 ...', spec.metavar)
    metavar = metavar.replace('{None}|', '').replace('STR', 'TEXT')

    def convert(values: list[str]) -> Any:
        choices = spec.choices or values
        for value in set(values).difference(choices):
            near = did_you_mean(value, choices)
            raise ValueError(f"'{value}' is none of {', '.join(choices)}{near}")
        try:
            return spec.instance_from_str(values)
        except ValueError as error:
            raise ValueError(f"{metavar} is wanted, got '{' '.join(values)}'") from error

    return dataclasses.replace(spec, metavar=metavar, choices=None, instance_from_str=convert)


def parse(options: type[T], verb: str, arguments: Sequence[str], **preset: Any) -> T:
    """
    Return the options of ``nightseg VERB``; ``OptionError`` for values out of range.

    Flags that are unknown, missing or of the wrong type exit with 2 and a hint.
    """
    parsed: T = tyro.cli(
        options, prog=f'nightseg {verb}', args=list(arguments), registry=_RULES,
        config=(tyro.conf.PositionalMetavarFromFieldName,), **preset,
    )  # fmt: skip
    return parsed


def read_config(
    options: type[T], verb: str, arguments: Sequence[str], default: Path | None = None
) -> T:
    """
    Return options from ``--config FILE.yaml``, else ``default``, and from flags, which win.

    ``ConfigError`` names a key of the file that is unknown, missing or of the wrong type.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument('--config', default=default)
    try:
        given, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError('--config needs the name of a YAML file') from error
    if given.config is None:
        return parse(options, verb, rest)
    # flags give what the file leaves out, mostly --out: settings are checked with them
    preset = from_mapping(options, read_yaml(given.config), missing=tyro.MISSING, check=False)
    return parse(options, verb, rest, default=preset)


def refuse(options: Any, what: str, *names: str) -> None:
    """Raise ``ConfigError`` for options of these names that were given."""
    for field in dataclasses.fields(options):
        if field.name in names and getattr(options, field.name) != field.default:
            raise ConfigError(f'--{field.name} has no effect on {what}: leave it out')


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column holds words, the others numbers."""
    table = Table(title=escape(title), title_justify='left', box=SIMPLE)
    for index, column in enumerate(columns):
        table.add_column(column, justify='right' if index else 'left', overflow='fold')
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    # printed by itself it would end the process with 1 where the reader of a pipe has left
    with console.capture() as shown:
        console.print(table)
    print(shown.get(), end='', flush=True)


def tell_problems(verb: str, count: int | str, what: str) -> int:
    """Print how many problems there were, '' for none; return the exit code."""
    if count:
        print(f'nightseg {verb}: {count} {what} (see above)', file=sys.stderr)
    return 1 if count else 0


def hear_signals(handler: Callable[..., Any] = signal.default_int_handler) -> None:
    """Take SIGINT, SIGTERM and SIGHUP for Ctrl-C, or call ``handler`` for them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores SIGHUP, and a script's `&` SIGINT, which shall be heard
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


class Progress(bars.Progress):
    """One bar on stderr, so that stdout stays fit for a pipe; without a known total it counts."""

    def __init__(self, title: str, total: int | None) -> None:
        super().__init__(
            bars.SpinnerColumn(), bars.TextColumn('{task.description}', markup=False),
            bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True, quiet=not LOG.isEnabledFor(logging.WARNING)),
        )  # fmt: skip
        self._bar = self.add_task(title, total=total)

    def show(self, done: int, total: int | None = None, text: str = '') -> None:
        """Show that ``done`` are done; a new total or text replaces the old one."""
        self.update(self._bar, completed=done, total=total, description=text or None)

    def note(self, text: str) -> None:
        """Print a line above the bar, where there is something to say."""
        if text:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def problem(self, text: str) -> None:
        """Print a line above the bar, also where no progress is wanted."""
        if self.console.quiet:
            print(text, file=sys.stderr)
        else:
            self.note(text)
