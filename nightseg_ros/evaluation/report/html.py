# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML page that needs no network and runs no script."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from nightseg_ros.evaluation.report.document import Document


def to_html(document: Document) -> str:
    """
    Return the page.

    Every value is escaped by the template; only the drawings and the style sheet, which this
    package makes, are taken as markup.
    """
    template, css = _page()
    return template.render(document=document, css=css) + '\n'


@lru_cache(maxsize=1)
def _page() -> tuple[Template, Markup]:
    """Return the template and its style sheet, read once."""
    folder = files('nightseg_ros.evaluation.report')
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals['percent'] = _percent
    template = environment.from_string((folder / 'page.html.jinja').read_text(encoding='utf-8'))
    css = (folder / 'page.css').read_text(encoding='utf-8')
    return template, Markup(css)  # noqa: S704  # nosec


def _percent(value: float) -> str:
    """Return a place or length of 0 to 1 for a style."""
    return f'{100 * min(max(value, 0.0), 1.0):.2f}%'
