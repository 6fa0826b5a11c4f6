# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Strict construction of the frozen config dataclasses from YAML, flags or ROS parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import contextlib
import dataclasses
import difflib
from functools import lru_cache
import math
import os
from pathlib import Path
import reprlib
import types
from typing import Annotated, Any, get_args, get_origin, get_type_hints, Literal, TypeVar, Union

from nightseg_ros.files import read_text

T = TypeVar('T')
_REQUIRED = object()
#: Bytes of the largest file of settings that is read.
_MAX_YAML = 2**20
_MAX_DEPTH = 50


class ConfigError(ValueError):
    """A configuration with an unknown key, a wrong type or a value out of range."""


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of settings; ``ConfigError`` where it is no YAML mapping of plain values."""
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_YAML:
            raise OSError(f'it is longer than {_MAX_YAML} bytes; settings are short')
        mapping = load_yaml(read_text(file))
    except OSError as error:
        raise ConfigError(f"'{file}' cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"'{file}' is no YAML: {error}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"'{file}' must be a mapping of settings, got {reprlib.repr(mapping)}")
    return mapping


def load_yaml(text: str, *, aliases: bool = False) -> Any:
    """
    Return what a YAML text holds, made of plain values only.

    ``ValueError`` where it is none, nested deeper than ``_MAX_DEPTH`` (on which libyaml would
    crash), or has an alias: a few lines of them stand for gigabytes once they are written out.
    """
    import yaml

    # the loader in C, where it is there, is ten times as fast
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, loader):
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise ValueError('it has an alias (*name); write the value out')
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ValueError(f'it is nested deeper than {_MAX_DEPTH}')
        return yaml.load(text, loader)  # noqa: S506  # nosec
    # tags with a value that is none of theirs (!!bool x) fail in many ways
    except Exception as error:
        raise ValueError(f'{error}' or type(error).__name__) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'?" with the nearest known names, '' where none is near."""
    close = difflib.get_close_matches(name, list(known), n=2)
    return f'; did you mean {" or ".join(map(repr, close))}?' if close else ''


def from_mapping(
    cls: type[T], mapping: Mapping[str, Any], *, where: str = '', missing: Any = _REQUIRED,
    below: T | None = None, check: bool = True,
) -> T:  # fmt: skip
    """
    Build the dataclass ``cls`` from a mapping, nested mappings for nested dataclasses.

    ``where`` is the dotted key of the mapping itself, for messages. ``ConfigError`` names the
    first unknown key, missing key or value of the wrong type; a ``ValueError`` raised by the
    class's own checks becomes one, too. A required key that is not there takes the value
    ``missing``, if given. Keys that are not there have the values of ``below``; for a nested
    mapping that is its own default. Without ``check`` the classes' own checks are left to whoever
    builds from the result, once more keys are known.
    """
    hints = get_type_hints(cls)
    prefix = f'{where}.' if where else ''
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"'{where}' must be a mapping of keys, got {reprlib.repr(mapping)}")
    values = {
        field.name: _default(field) if below is None else getattr(below, field.name)
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    }
    for key, value in mapping.items():
        if key not in values:
            near, known = did_you_mean(str(key), values), ', '.join(sorted(values))
            raise ConfigError(f"unknown key '{prefix}{key}'; known keys: {known}{near}")
        values[key] = _fit(hints[key], value, f'{prefix}{key}', values[key], check)
    for name, value in values.items():
        if value is dataclasses.MISSING:
            if missing is _REQUIRED:
                raise ConfigError(f"key '{prefix}{name}' is missing")
            values[name] = missing
    if not check:
        bare = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(bare, name, value)
        return bare
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"'{where}': {error}" if where else str(error)) from error


def _default(field: dataclasses.Field[Any]) -> Any:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def check_rules(config: Any, *rules: tuple[str, bool, str]) -> None:
    """Raise ``ValueError`` for the first (key, whether it is kept, what it must) that is not."""
    for key, kept, rule in rules:
        if not kept:
            raise ValueError(f"'{key}' must {rule}, got {getattr(config, key)!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The range of a setting, ends included, in its ``Annotated`` type."""

    low: float
    high: float = math.inf


Natural = Annotated[int, Limits(0)]
Positive = Annotated[int, Limits(1)]
NotNegative = Annotated[float, Limits(0)]
Share = Annotated[float, Limits(0, 1)]


def setting(default: Any, text: str, **more: Any) -> Any:
    """
    Return a field that is a parameter of a node, and what it means.

    ``more`` are ``bounds``, ends included, ``choices``, and ``dynamic``: see ``live``.
    """
    return dataclasses.field(default=default, metadata={'text': text, **more})


def live(default: Any, text: str, **more: Any) -> Any:
    """Return a ``setting`` that may change while the node is configured."""
    return setting(default, text, dynamic=True, **more)


class Limited:
    """What config dataclasses inherit whose settings have ``Limits`` or bounds."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for the first setting outside of its limits."""
        for name, limits in _limits(type(self)):  # type: ignore[arg-type]
            value = getattr(self, name)
            # None where it is left out
            if isinstance(value, (int, float)) and not limits.low <= value <= limits.high:
                wanted = f'{limits.low:g} to {limits.high:g}'
                if limits.high == math.inf:
                    wanted = f'at least {limits.low:g}'
                raise ValueError(f"'{name}' must be {wanted}, got {value}")


@lru_cache
def _limits(cls: type) -> list[tuple[str, Limits]]:
    hints = get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)
    limits = [(f.name, Limits(*f.metadata['bounds'])) for f in fields if f.metadata.get('bounds')]
    for name, hint in hints.items():
        notes = getattr(hint, '__metadata__', ())
        limits += [(name, note) for note in notes if isinstance(note, Limits)]
    return limits


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config dataclass as nested plain dicts and lists, fit for YAML and JSON."""
    result = dataclasses.asdict(config)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in result.items()}


def _fit(hint: Any, value: Any, key: str, below: Any = None, check: bool = True) -> Any:
    """Return ``value`` as the type ``hint``, or raise ``ConfigError`` naming ``key``."""
    origin, inner = get_origin(hint), get_args(hint)
    wanted = f'be {getattr(hint, "__name__", hint)}'
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _fit(next(o for o in inner if o is not type(None)), value, key, below, check)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        below = below if isinstance(below, hint) else None
        return from_mapping(hint, value, where=key, below=below, check=check)
    if origin is Literal:
        if value in inner:
            return value
        wanted = f'be one of {list(inner)}'
    elif origin is tuple:
        if not isinstance(value, (list, tuple)):
            wanted = 'be a list'
        else:
            hints = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            if len(value) == len(hints):
                return tuple(
                    _fit(t, v, f'{key}[{i}]') for i, (t, v) in enumerate(zip(hints, value))
                )
            wanted = f'have {len(inner)} items'
    elif hint is dict or origin in (dict, Mapping):
        if isinstance(value, Mapping):
            of_key, of_value = inner or (Any, Any)
            return {
                _fit(of_key, k, key): _fit(of_value, v, f'{key}.{k}') for k, v in value.items()
            }
        wanted = 'be a mapping'
    elif hint is Any:
        return value
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        # it may have more digits than a float can hold
        with contextlib.suppress(OverflowError):
            return float(value)
    # bool is an int to Python, but never to a reader of a YAML file
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    got = f'{reprlib.repr(value)} ({type(value).__name__})'
    raise ConfigError(f"'{key}' must {wanted}, got {got}")
