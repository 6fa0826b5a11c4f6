# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Print what is generated from the nodes' tables of parameters and topics.

``python bench/node_tables.py night_perception.yaml`` prints config/night_perception.yaml; likewise
``semantic_cloud.yaml``. ``night_perception.md`` and ``semantic_cloud.md`` are the tables of
parameters in the documents, ``topics.md`` that of the topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import os
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


def yaml_text(node: str, parameters: Sequence[Parameter]) -> str:
    """Return the YAML file of a node's table."""
    lines: list[str] = []
    group: list[str] = []
    for parameter in parameters:
        *path, leaf = parameter.name.split('.')
        shared = len(os.path.commonprefix([path, group]))
        lines += [f'{_indent(d)}{path[d]}:' for d in range(shared, len(path))]
        group, indent = path, _indent(len(path))
        bounds = f' [{parameter.accepted}]' if parameter.accepted else ''
        text = f'{parameter.text}{bounds}{" (dynamic)" if parameter.dynamic else ""}'
        prefix = f'{indent}# '
        lines += textwrap.wrap(text, 99, initial_indent=prefix, subsequent_indent=prefix)
        lines.append(f'{indent}{leaf}: {_literal(parameter.default)}')
    return _HEAD.format(node=node) + '\n'.join(lines) + '\n'


def _indent(depth: int) -> str:
    return ' ' * (4 + 2 * depth)


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, tuple):
        return '[' + ', '.join(_literal(item) for item in value) + ']'
    return repr(value) if isinstance(value, float) or value == '' else str(value)


def parameter_table(parameters: Sequence[Parameter]) -> str:
    """Return a table of parameters as documents show it."""
    head = ('Parameter', 'Type', 'Default', 'Accepted', 'At run time', 'Meaning')
    rows = [
        (
            f'`{p.name}`', p.kind, f'`{_literal(p.default)}`', p.accepted,
            'yes' if p.dynamic else 'no',
            # GitHub would take <camera> for a tag and drop it
            p.text.replace('<', '&lt;'),
        )
        for p in parameters
    ]  # fmt: skip
    return _table(head, rows)


def topic_table() -> str:
    """Return the table of topics as documents show it."""
    rows = [
        (f'`{topic.name}`', topic.kind, topic.text + ' (transient local)' * topic.latched)
        for topic in TOPICS
    ]
    return _table(('Topic under `<camera>/nightseg/`', 'Type', 'Content'), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(cells)} |\n' for cells in (head, *rows)]
    return ''.join([lines[0], '|' + '---|' * len(head) + '\n', *lines[1:]])


def generate(name: str) -> str:
    """Return the text of that name; ``ValueError`` lists the names."""
    texts = {'topics.md': topic_table()}
    for node, parameters in TABLES.items():
        texts[f'{node}.yaml'] = yaml_text(node, parameters)
        texts[f'{node}.md'] = parameter_table(parameters)
    if name not in texts:
        raise ValueError(f"'{name}' is none of {', '.join(texts)}")
    return texts[name]


if __name__ == '__main__':
    try:
        sys.stdout.write(generate(''.join(sys.argv[1:])))
    except ValueError as error:
        sys.exit(f'node_tables.py: {error}')
