# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg report``: the report of a finished evaluation, made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """
    Write DIR/report.html and DIR/report.md from what `nightseg evaluate --out DIR` left there.

    Neither the data nor the weights nor a network connection is needed.
    """

    dir: tyro.conf.Positional[Path]
    """Folder of a finished evaluation."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(ReportOptions, 'report', arguments)

    from nightseg_ros.evaluation.report import write_report

    write_report(options.dir)
    for name in ('report.html', 'report.md'):
        print(options.dir / name)
    return 0
