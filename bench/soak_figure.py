# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The figure of a soak: what the node held over time, with its events.

``python bench/soak_figure.py soak.csv WARM_UP_S soak.png`` draws it again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Colours that colour-blind readers tell apart (Okabe and Ito 2008).
COLORS = {
    'silence': '#D55E00', 'restart': '#CC79A7', 'deactivate': '#0072B2', 'configure': '#000000',
    'force_route': '#009E73',
}  # fmt: skip
PAIR = ('#0072B2', '#E69F00')
_ROUTES = {'day': 1, 'translate': 0.5, 'night': 0}


def draw(rows: Sequence[Mapping[str, Any]], warm_up: float, path: Path) -> None:
    """Write the figure; ``warm_up`` in seconds as the rows' ``seconds``."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    seconds = np.array([float(row['seconds']) for row in rows])
    minutes = seconds / 60
    figure, axes = pyplot.subplots(6, 1, figsize=(10, 12), sharex=True, constrained_layout=True)
    memory, change, counts, times, frames, routes = axes

    def series(panel: Any, label: str, *names: str) -> None:
        for name, color in zip(names, PAIR):
            values = [float(row[name]) for row in rows]
            panel.plot(minutes, values, lw=0.9, label=name, c=color)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)

    series(memory, 'memory in MB', 'rss_mb', 'anon_mb')
    series(counts, 'count', 'fds', 'threads')
    series(times, 'milliseconds', 'latency_ms', 'cpu_ms_per_frame')
    series(frames, 'frames a sample', 'sent', 'masks')
    judged = seconds >= warm_up
    for name, color in zip(('rss_mb', 'anon_mb'), PAIR):
        values = np.array([float(row[name]) for row in rows])
        kept = values[judged] if judged.any() else values
        first = np.median(kept[: max(len(kept) // 4, 1)])
        change.plot(minutes, 100 * (values / first - 1), lw=0.9, label=name, c=color)
    change.axhline(1, c='#D55E00', lw=0.9, ls='--')
    low, high = change.get_ylim()
    change.set_ylim(min(low, -2), max(high, 2))
    change.set_ylabel('memory in %\nof the first quarter')
    for name, color in zip(('route_front', 'route_rear'), PAIR):
        taken = [_ROUTES.get(row[name], float('nan')) for row in rows]
        routes.step(minutes, taken, where='post', lw=0.9, label=name, c=color)
    routes.set_yticks(list(_ROUTES.values()), list(_ROUTES))
    routes.set_ylabel('route')
    routes.set_xlabel('minutes')
    for event, color in COLORS.items():
        at = [minute for minute, row in zip(minutes, rows) if row['event'] == event]
        memory.plot(
            at, [0.04] * len(at), '|', ms=9, c=color, label=event,
            transform=memory.get_xaxis_transform(),
        )  # fmt: skip
    for panel in axes:
        panel.axvspan(0, warm_up / 60, color='#dddddd', alpha=0.5, lw=0)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
        panel.legend(loc='center right', fontsize=8, frameon=False)
    memory.set_title('grey: warm-up, not judged; dashed: the limit', fontsize=9)
    figure.savefig(path, dpi=80)


if __name__ == '__main__':
    with open(sys.argv[1], encoding='utf-8') as file:
        draw(list(csv.DictReader(file)), float(sys.argv[2]), Path(sys.argv[3]))
