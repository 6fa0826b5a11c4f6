# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The figure of a soak: what the node held over time, with its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Colours that colour-blind readers tell apart (Okabe and Ito 2008).
COLORS = {
    'silence': '#D55E00', 'restart': '#CC79A7', 'deactivate': '#0072B2', 'configure': '#000000',
    'force_route': '#009E73',
}  # fmt: skip
#: Panels from above: label of the axis, and the series in it.
PANELS = (
    ('memory in MB', ('rss_mb', 'anon_mb')),
    ('count', ('fds', 'threads')),
    ('milliseconds', ('latency_ms', 'cpu_ms_per_frame')),
    ('frames a sample', ('sent', 'masks')),
)
_ROUTES = {'day': 1, 'translate': 0.5, 'night': 0}


def draw(
    rows: Sequence[Mapping[str, Any]],
    events: Sequence[tuple[float, str]],
    warm_up: float,
    path: Path,
) -> None:
    """Write the figure; ``events`` and ``warm_up`` in seconds as the rows' ``seconds``."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    minutes = [row['seconds'] / 60 for row in rows]
    figure, axes = pyplot.subplots(
        len(PANELS) + 1, 1, figsize=(10, 11), sharex=True, constrained_layout=True
    )
    for panel, (label, names) in zip(axes, PANELS):
        for name, color in zip(names, ('#0072B2', '#E69F00')):
            panel.plot(minutes, [float(row[name]) for row in rows], lw=0.9, label=name, c=color)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.legend(loc='lower right', fontsize=8, ncols=2, frameon=False)
    for name, color in (('route_front', '#0072B2'), ('route_rear', '#E69F00')):
        routes = [_ROUTES.get(row[name], float('nan')) for row in rows]
        axes[-1].step(minutes, routes, where='post', lw=0.9, label=name, c=color)
    axes[-1].set_yticks(list(_ROUTES.values()), list(_ROUTES))
    axes[-1].set_ylabel('route')
    axes[-1].set_xlabel('minutes')
    for panel in axes:
        panel.axvspan(0, warm_up / 60, color='#dddddd', alpha=0.5, lw=0)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    for name, color in COLORS.items():
        at = [seconds / 60 for seconds, event in events if event == name]
        axes[0].plot(
            at, [0.03] * len(at), '|', ms=9, c=color, label=name,
            transform=axes[0].get_xaxis_transform(),
        )  # fmt: skip
    axes[0].legend(loc='upper right', fontsize=8, ncols=4, frameon=False)
    axes[0].set_title('grey: warm-up, not judged', fontsize=9)
    figure.savefig(path, dpi=90)
