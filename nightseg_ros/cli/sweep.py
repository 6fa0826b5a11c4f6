# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg sweep``: the curve of accuracy over the share of synthetic night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nightseg_ros.cli.train import read_config
from nightseg_ros.files import share_dir
from nightseg_ros.training.sweep_config import SweepConfig

#: What holds where no other file is named.
DEFAULT = ('config', 'training', 'sweep.yaml')


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions(SweepConfig):
    """
    Train and score a trial for each ratio, variant and seed; then write table and figure.

    Settings of the trainings come from --config FILE.yaml, without it from the package's
    config/training/sweep.yaml. The same command goes on after an interruption; --shard divides the
    trials among processes or machines that share the folder.
    """


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = list(arguments)
    if not any(argument.partition('=')[0] == '--config' for argument in given):
        given = ['--config', str(share_dir().joinpath(*DEFAULT)), *given]
    options = read_config(SweepOptions, 'sweep', given)

    from nightseg_ros.training.sweep import sweep

    report = sweep(options, lambda text: print(text, flush=True))
    print(f'\n{report.text}')
    for file in report.files:
        print(f"'{file}'")
    return 0
