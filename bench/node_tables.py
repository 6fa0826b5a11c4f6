# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Print what is generated from the nodes' tables of parameters and topics.

``python bench/node_tables.py night_perception.yaml`` prints config/night_perception.yaml; likewise
``semantic_cloud.yaml``. ``night_perception.md`` and ``semantic_cloud.md`` are the tables of
parameters in the documents, ``topics.md`` that of the topics.
"""

from __future__ import annotations

from collections.abc import Sequence
import sys
import textwrap

from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.parameters import CLOUD_PARAMETERS, Parameter, PARAMETERS, Value

TABLES = {'night_perception': PARAMETERS, 'semantic_cloud': CLOUD_PARAMETERS}

_HEAD = """\
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Every parameter of {node} with its default. Those marked (dynamic) may be set while
# the node runs, the others while it is unconfigured. Written by
# `python bench/node_tables.py {node}.yaml`.
/**:
  ros__parameters:
"""


def yaml_text(parameters: Sequence[Parameter], node: str) -> str:
    """Return the YAML file of a node's table."""
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
        bounds = f' [{parameter.accepted}]' if parameter.accepted else ''
        dynamic = ' (dynamic)' if parameter.dynamic else ''
        lines += _wrapped(f'{parameter.text}{bounds}{dynamic}', f'{_indent(len(path))}# ')
        lines.append(f'{_indent(len(path))}{leaf}: {_literal(parameter.default)}')
    return _HEAD.format(node=node) + '\n'.join(lines) + '\n'


def parameter_table(parameters: Sequence[Parameter]) -> str:
    """Return a table of parameters as documents show it."""
    rows = [
        '| Parameter | Type | Default | Accepted | At run time | Meaning |',
        '|---|---|---|---|---|---|',
    ]
    for p in parameters:
        dynamic = 'yes' if p.dynamic else 'no'
        # GitHub would take <camera> for a tag and drop it
        text = p.text.replace('<', '&lt;')
        rows.append(
            f'| `{p.name}` | {p.kind} | `{_literal(p.default)}` | {p.accepted} '
            f'| {dynamic} | {text} |'
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


def topic_table() -> str:
    """Return the table of topics as the README shows it."""
    rows = ['| Topic under `<camera>/nightseg/` | Type | Content |', '|---|---|---|']
    for topic in TOPICS:
        latched = ' (transient local)' if topic.latched else ''
        rows.append(f'| `{topic.name}` | {topic.kind} | {topic.text}{latched} |')
    return '\n'.join(rows) + '\n'


def generate(name: str) -> str:
    """Return the text of that name; ``ValueError`` lists the names."""
    if name == 'topics.md':
        return topic_table()
    node, _, suffix = name.partition('.')
    if node not in TABLES or suffix not in ('yaml', 'md'):
        names = [f'{n}.{s}' for n in TABLES for s in ('yaml', 'md')]
        raise ValueError(f"'{name}' is none of {', '.join([*names, 'topics.md'])}")
    table = TABLES[node]
    return yaml_text(table, node) if suffix == 'yaml' else parameter_table(table)


if __name__ == '__main__':
    try:
        sys.stdout.write(generate(''.join(sys.argv[1:])))
    except ValueError as error:
        sys.exit(f'node_tables.py: {error}')
