# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Settings of ``nightseg sweep``; light, so that its help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The synthetic night that is made while training; every other variant is a data set.
ONLINE = 'physical'


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """How much synthetic night helps: one short training for each ratio, variant and seed."""

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder of the sweep: day/, cells/, and sweep.csv, .md, .png, .svg."""
    select: tuple[str, ...]
    """Labelled data sets that the sweet spot is chosen on."""
    report: tuple[str, ...] = ()
    """Labelled data sets that are scored and shown, but choose nothing."""
    ratios: tuple[float, ...] = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
    """Shares of synthetic night among the crops."""
    variants: tuple[str, ...] = (ONLINE,)
    """'physical', made while training, or NAME=ADAPTER:ROOT[:SPLIT]: nights that are there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    segmenter: dict[str, Any] = field(default_factory=dict)
    """Settings of `nightseg train segmenter` for all trainings."""
    day: dict[str, Any] = field(default_factory=dict)
    """Further ones for the day checkpoint of each seed, which its cells start from."""
    cell: dict[str, Any] = field(default_factory=dict)
    """Further ones for the fine-tuning of each cell."""
    workers: int = 1
    """Processes on this machine; other machines may work in the same folder beside them."""
    expiry: float = 300.0
    """Seconds without a sign of life after which another process takes over a cell."""
    poll: float = 5.0
    """Seconds between looks at what other processes have finished."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot make a curve, naming them."""
        for name in ('data', 'select', 'ratios', 'variants', 'seeds'):
            values = getattr(self, name)
            if not isinstance(values, tuple):
                continue  # the command line has yet to fill it in
            if not values:
                raise ValueError(f"'{name}' must name at least one")
            if len(set(values)) != len(values):
                raise ValueError(f"'{name}' names one twice: {list(values)}")
        if not all(0.0 <= ratio <= 1.0 for ratio in self.ratios):
            raise ValueError(f"'ratios' are 0 to 1, got {list(self.ratios)}")
        for name in self.nights():
            if not name.replace('-', '').replace('_', '').isalnum():
                raise ValueError(
                    f"'variants' has {name!r}; a name is of letters, digits, - and _, and all "
                    f"but '{ONLINE}' need a data set: NAME=ADAPTER:ROOT[:SPLIT]"
                )
        if len(self.nights()) != len(self.variants):
            raise ValueError(f"'variants' uses one name twice: {list(self.variants)}")
        if self.workers < 1:
            raise ValueError(f"'workers' must be at least 1, got {self.workers}")
        if min(self.expiry, self.poll) <= 0.0:
            raise ValueError("'expiry' and 'poll' must be above 0 seconds")

    def nights(self) -> dict[str, str]:
        """Return the data set of each variant by its name; '' for nights made while training."""
        found = {}
        for variant in self.variants:
            name, _, spec = variant.partition('=')
            # a name without a data set is only good for the one that needs none
            found[name if spec or name == ONLINE else ''] = spec
        return found
