# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``report.html`` and ``report.md`` of a finished evaluation."""

from __future__ import annotations

from pathlib import Path

from nightseg_ros.evaluation.report.calibration import calibration_section
from nightseg_ros.evaluation.report.classes import (
    classes_section,
    confusion_section,
    splits_section,
)
from nightseg_ros.evaluation.report.data import Evaluation, find
from nightseg_ros.evaluation.report.document import Document
from nightseg_ros.evaluation.report.flicker import flicker_section
from nightseg_ros.evaluation.report.frames import frames_section
from nightseg_ros.evaluation.report.html import to_html
from nightseg_ros.evaluation.report.losses import losses_section
from nightseg_ros.evaluation.report.markdown import to_markdown
from nightseg_ros.evaluation.report.origin import facts, origin_section, terms_section
from nightseg_ros.evaluation.report.result import headline, result_section
from nightseg_ros.evaluation.report.router import router_section
from nightseg_ros.evaluation.report.speed import speed_section
from nightseg_ros.evaluation.report.timeline import timeline_section
from nightseg_ros.files import replace_file


def write_report(out: Path) -> None:
    """
    Write ``report.html`` and ``report.md`` into the folder of a finished evaluation.

    Reads only what lies in ``out``: ``metrics.json``, and ``frames.jsonl`` and ``samples/``
    where they are. ``ReportError`` says what is missing; ``OSError`` where nothing can be written.
    """
    document = compose(Evaluation.read(out))
    for name, text in (('report.html', to_html(document)), ('report.md', to_markdown(document))):
        replace_file(out / name, text.encode('utf-8', errors='replace'))


def compose(evaluation: Evaluation) -> Document:
    """Return everything that the report says."""
    sections = [
        result_section(evaluation),
        classes_section(evaluation),
        splits_section(evaluation),
        timeline_section(evaluation),
        frames_section(evaluation),
        confusion_section(evaluation),
        calibration_section(evaluation),
        flicker_section(evaluation),
        router_section(evaluation),
        speed_section(evaluation),
        losses_section(evaluation),
        origin_section(evaluation),
        terms_section(),
    ]
    names = [scored.name for scored in evaluation.sets]
    title = ', '.join(names) if 0 < len(names) <= 3 else f'{len(names)} sets'
    return Document(
        title=title,
        lead=headline(evaluation),
        facts=tuple(facts(evaluation)),
        sections=tuple(section for section in sections if section is not None),
        colophon='Made by nightseg report from metrics.json, frames.jsonl and samples/ of this '
        f'evaluation, format {find(evaluation.metrics, "version")}. '
        'The numbers hold for these frames, these weights and this machine.',
    )
