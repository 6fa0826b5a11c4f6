# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Where the results of a camera belong, by the name of its image topic."""

from __future__ import annotations

from collections.abc import Sequence

#: Last part of the name below which a camera's results are published.
NAMESPACE = 'nightseg'


def output_prefixes(topics: Sequence[str]) -> list[str]:
    """
    Return what each camera's output topics begin with, its image topic being given.

    ``/front/image_raw`` has its labels on ``/front/nightseg/labels``. Two images of one parent, or
    of none to speak of, are told apart by the whole topic.
    """
    stems = [topic.removesuffix('/compressed') for topic in topics]
    parents = [stem.rpartition('/')[0] for stem in stems]
    return [
        f'{parent if parents.count(parent) == 1 and parent else stem}/{NAMESPACE}'
        for parent, stem in zip(parents, stems)
    ]
