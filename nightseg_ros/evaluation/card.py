# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A model card: what a weights file says about itself, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, network_tensors

USES = {
    'segment': 'labels every pixel of a camera frame',
    'translate': 'turns a night frame into a day frame before it is labelled',
    'illumination': 'tells day, dusk, night and glare apart',
}


def model_card(weights: Weights, agreement: Mapping[str, float] | None = None) -> str:
    """
    Return the card of ``weights``; ``agreement`` are shares by runtime, as ``agreement`` gives.

    Nothing in it is made up: what the metadata does not say is said to be missing.
    """
    metadata = weights.metadata
    parameters = sum(
        tensor.numel()
        for name, tensor in network_tensors(weights.tensors).items()
        if 'running_' not in name
    )
    rows = {
        'Task': f'{metadata.task}: {USES[metadata.task]}',
        'Network': f'`{metadata.network}` {metadata.arch or ""}'.strip(),
        'Parameters': f'{parameters / 1e6:.2f} M',
        'Input': f'RGB, long side {metadata.long_side} pixels',
        'Trained on': metadata.data or 'not stated',
        'Synthetic night': f'{metadata.ratio:.0%} of the training samples',
        'Licence': metadata.license or 'not stated',
        'Code': f'commit {metadata.commit}' if metadata.commit else 'not stated',
        'SHA-256': f'`{weights.sha256}`',
    }
    lines = [f'# {weights.path.stem}', '', '| | |', '|---|---|']
    lines += [f'| {name} | {_cell(value)} |' for name, value in rows.items()]
    if metadata.taxonomy is not None:
        taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        ids = ', '.join(f'{index} {name}' for index, name in enumerate(taxonomy.classes))
        lines += ['', f'Labels (`{taxonomy.name}`): {ids}; 255 is unlabelled.']
    lines += ['', '## Scores', '', *_scores(metadata.metrics)]
    if agreement:
        lines += ['', '## Exported graph', '']
        lines += [
            f'- {name}: {share:.4%} of the pixels as torch gives them'
            for name, share in agreement.items()
        ]
    lines += ['', '## Training', '']
    if metadata.training:
        settings = yaml.safe_dump(dict(metadata.training), default_flow_style=None).strip()
        lines += ['```yaml', settings, '```']
    else:
        lines += ['Not stated.']
    return '\n'.join(lines) + '\n'


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """Return a table: a row for each data set, a column for each figure."""
    runs = {name: run for name, run in metrics.items() if isinstance(run, Mapping)}
    if not runs:
        return ['None are stored in this file.']
    columns = list(dict.fromkeys(key for run in runs.values() for key in run))
    lines = [f'| data set | {" | ".join(columns)} |', f'|---{"|---" * len(columns)}|']
    for name, run in runs.items():
        figures = ' | '.join(_figure(run.get(key)) for key in columns)
        lines.append(f'| {_cell(name)} | {figures} |')
    others = [f'{key}: {value}' for key, value in metrics.items() if key not in runs]
    return [*lines, '', *others] if others else lines


def _figure(value: Any) -> str:
    if value is None:
        return '–'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(_figure(item) for item in value)}]'
    return f'{value:.3f}' if isinstance(value, float) else _cell(value)


def _cell(value: Any) -> str:
    return str(value).replace('|', '\\|').replace('\n', ' ')
