# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A progress bar on stderr, so that stdout stays fit for a pipe."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars


class Progress:
    """One bar; without a known total it counts."""

    def __init__(self, title: str, total: int | None) -> None:
        """Name what goes on and of how many."""
        self.console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(), TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=self.console,
        )  # fmt: skip
        self._task = self._bars.add_task(title, total=total)

    def __enter__(self) -> Progress:
        """Show it."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave it at what was reached."""
        self._bars.stop()

    def set(self, done: int, total: int | None = None, text: str = '') -> None:
        """Show that ``done`` are done; a new total or text replaces the old one."""
        self._bars.update(
            self._task, completed=done,
            **({'total': total} if total is not None else {}),  # type: ignore[arg-type]
            **({'description': text} if text else {}),  # type: ignore[arg-type]
        )  # fmt: skip

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
