# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg calibrate``: weights learn how sure they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightseg_ros.cli.train import read_config
from nightseg_ros.training.calibration_config import CalibrationConfig


def main(arguments: Sequence[str]) -> int:
    """Run the verb; flags win over ``--config FILE.yaml``."""
    config = read_config(CalibrationConfig, 'calibrate', arguments)

    from nightseg_ros.training.calibrate import calibrate

    done = calibrate(config, lambda text: print(text, flush=True))
    if 'temperature' in done.about:
        _print(done.about['temperature'])
    for key, value in done.about.get('reliability', {}).items():
        print(f'reliability: {key} {value}')
    print(f"'{done.path}': temperature {done.temperature:.3f}, SHA-256 {done.sha256}")
    return 0


def _print(found: Mapping[str, Any]) -> None:
    """Print the calibration errors."""
    from rich.console import Console
    from rich.table import Table

    places = ', '.join(f'{place} {t:.3f}' for place, t in found['out_of_fold'].items())
    table = Table(title=f'calibration error; temperature fitted without: {places}')
    for column in ('', 'frames', 'accuracy', 'confidence', 'error before', 'after, out of fold'):
        table.add_column(column, justify='left' if not column else 'right')
    for name, row in found['errors'].items():
        if 'before' not in row:
            continue
        table.add_row(
            name, str(row['frames']), f'{row["before"]["accuracy"]:.3f}',
            f'{row["before"]["confidence"]:.3f}', f'{row["before"]["ece"]:.3f}',
            f'{row["after"]["ece"]:.3f}',
        )  # fmt: skip
    Console().print(table)
