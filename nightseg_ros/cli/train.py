# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train RECIPE``: the recipes that make weights, by flags or from a YAML file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from nightseg_ros.cli.options import parse
from nightseg_ros.config import ConfigError, from_mapping, read_yaml

#: Sub-verb: its module, which has the config and runs it, and a line of help.
RECIPES = {
    'segmenter': ('nightseg_ros.cli.train_segmenter', 'labelled frames in, a segmenter out'),
    'pseudo_labels': (
        'nightseg_ros.cli.train_pseudo_labels',
        'unlabelled frames and a segmenter in, labels out',
    ),
    'translator': (
        'nightseg_ros.cli.train_translator',
        'unpaired day and night frames in, day-to-night and night-to-day generators out',
    ),
    'fast_translator': (
        'nightseg_ros.cli.train_fast_translator',
        'labelled day frames and a day segmenter in, a real-time night-to-day generator out',
    ),
    'soup': ('nightseg_ros.cli.train_soup', 'the mean of several weights of one network'),
    'illumination': (
        'nightseg_ros.cli.train_illumination',
        'day and night frames in, the illumination estimator out',
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run one recipe."""
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_help())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in RECIPES:
        print(
            f"nightseg train: there is no recipe '{name}'; recipes: {', '.join(RECIPES)}",
            file=sys.stderr,
        )
        return 2
    recipe = importlib.import_module(RECIPES[name][0])
    config = read_config(recipe.CONFIG, f'train {name}', rest)
    return int(recipe.run(config))


def read_config(kind: type[Any], verb: str, arguments: Sequence[str]) -> Any:
    """
    Build a config from ``--config FILE.yaml``, and from flags, which win over the file.

    ``ConfigError`` names a key of the file that is unknown, missing or of the wrong type.
    """
    rest = list(arguments)
    mapping: dict[str, Any] | None = None
    for index, argument in enumerate(rest):
        if argument == '--config' or argument.startswith('--config='):
            taken = 1 if '=' in argument else 2
            values = rest[index : index + taken]
            file = argument.partition('=')[2] if taken == 1 else ''.join(values[1:])
            if not file:
                raise ConfigError('--config needs the name of a YAML file')
            mapping = read_yaml(file)
            del rest[index : index + taken]
            break
    if mapping is None:
        return parse(kind, verb, rest)
    # what the file leaves out, flags have to say: rarely is in a file where a run goes
    return parse(kind, verb, rest, default=from_mapping(kind, mapping, missing=tyro.MISSING))


def _help() -> str:
    width = max(map(len, RECIPES)) + 2
    lines = [f'  {name:{width}}{text}' for name, (_, text) in RECIPES.items()]
    return '\n'.join(
        [
            'usage: nightseg train RECIPE [--config FILE.yaml] [options]',
            '',
            *lines,
            '',
            'Flags win over the file. nightseg train RECIPE --help lists them.',
        ]
    )
