# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Milliseconds by stage, and frames a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from nightseg_ros.evaluation.table import STAGES, Table

#: The stages of ``Pipeline.process``: what a camera's frame waits for.
PIPELINE = ('estimate', 'shrink', 'network', 'post', 'render')


def timing(table: Table) -> dict[str, Any]:
    """
    Return ``frames_per_second``, ``seconds`` and by stage the mean and percentiles in ms.

    Stages run side by side, so that the wall time of a frame is less than their sum. 'pipeline'
    is the sum of those that a live frame waits for.
    """
    masked = table.masked
    stages = {stage: table.ms[stage][masked] for stage in STAGES}
    stages['pipeline'] = np.nansum([stages[stage] for stage in PIPELINE], axis=0)
    seconds = float(np.nansum(table.ms['wall'])) / 1e3
    frames = int(table.readable.sum())
    return {
        'frames_per_second': round(frames / seconds, 2) if frames and seconds else None,
        'seconds': round(seconds, 3),
        'ms': {
            stage: {
                'mean': round(float(known.mean()), 3),
                **{
                    f'p{share}': round(float(np.percentile(known, share)), 3)
                    for share in (50, 95, 99)
                },
                'max': round(float(known.max()), 3),
            }
            for stage, values in stages.items()
            if len(known := values[~np.isnan(values)])
        },
    }
