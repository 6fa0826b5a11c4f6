# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is to be evaluated, cut into parts that any process can take."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import Sample
from nightseg_ros.data.source import camera_names, open_source
from nightseg_ros.evaluation.lineup import Configuration
from nightseg_ros.evaluation.part import Part, Pictures, Recording
from nightseg_ros.taxonomy import Taxonomy

#: Pictures of a data set in one part.
PICTURES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Every part, and the configurations that each frame goes through."""

    configurations: tuple[Configuration, ...]
    parts: tuple[Part, ...]
    save_labels: bool = False

    def __post_init__(self) -> None:
        """Refuse to save masks that would overwrite one another: they are named by picture."""
        if not self.save_labels:
            return
        names = Counter(
            (part.set, sample.image.stem)
            for part in self.parts
            if isinstance(part, Pictures)
            for sample in part.samples
        )
        for (name, stem), times in names.items():
            if times > 1:
                raise ConfigError(
                    f"{times} pictures of '{name}' are called '{stem}', so that their masks would "
                    'overwrite one another; rename them, or leave --save-labels out'
                )

    def sets(self) -> dict[str, list[int]]:
        """Return the numbers of the parts of each set."""
        found: dict[str, list[int]] = {}
        for number, part in enumerate(self.parts):
            found.setdefault(part.set, []).append(number)
        return found

    def run_name(self, set_name: str, configuration: int) -> str:
        """Return the name that the scores of a set in a configuration get."""
        name = self.configurations[configuration].name
        return f'{set_name}/{name}' if name else set_name

    def fingerprint(self, weights: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """
        Return what an interrupted evaluation must have in common with the one that goes on.

        ``weights`` is what ``Lineup.describe`` says; files go in with their size and time.
        """
        files = hashlib.sha256()
        for part in self.parts:
            for path in part.files:
                status = path.stat()
                files.update(os.fsencode(f'{path} {status.st_size} {status.st_mtime_ns}\n'))
        sources = [
            repr(part)
            if isinstance(part, Recording)
            else f'{part.spec}, {part.count}, {sorted({item.source for item in part.samples})}'
            for part in self.parts
        ]
        result = {
            'sources': sources,
            'files (size or time)': files.hexdigest(),
            'configurations': {item.name: to_mapping(item.config) for item in self.configurations},
            'backend or weights': list(weights),
            'save_labels': self.save_labels,
        }
        normal: dict[str, Any] = json.loads(json.dumps(result))
        return normal


def dataset_parts(
    specs: Sequence[str], taxonomy: Taxonomy, sources: Sequence[str] = ()
) -> list[Part]:
    """
    Return the parts of data sets ``ADAPTER:ROOT[:SPLIT]``, labelled in ``taxonomy``.

    ``sources`` are ``PATTERN=NAME``: a picture whose name (without suffix) fits the pattern is
    of that source, the first pattern wins; others keep the data set's. ``DataError`` says what
    is wrong with a data set.
    """
    parts: list[Part] = []
    names: Counter[str] = Counter()
    for spec in specs:
        samples = tuple(_named(open_dataset(spec, taxonomy), sources))
        # the last folder and the split are what people call it
        name = Path(spec.partition(':')[2]).name
        names[name] += 1
        if names[name] > 1:
            name = f'{name} ({names[name]})'
        for start in range(0, len(samples), PICTURES):
            some = samples[start : start + PICTURES]
            parts.append(Pictures(set=name, spec=spec, samples=some))
    return parts


def _named(samples: Sequence[Sample], sources: Sequence[str]) -> Iterator[Sample]:
    """Give the samples the sources that patterns of their names say."""
    pairs = [text.rpartition('=')[::2] for text in sources]
    for text, pair in zip(sources, pairs):
        if not all(pair):
            raise ConfigError(f"--sources '{text}' is no PATTERN=NAME, such as 'front_*=front'")
    for sample in samples:
        names = (name for pattern, name in pairs if fnmatchcase(sample.image.stem, pattern))
        yield replace(sample, source=next(names, sample.source))


def recording_parts(
    sources: Sequence[Path],
    *,
    topics: Sequence[str] = (),
    labels: Sequence[str] = (),
    light: str = '',
    rate: float | None = None,
    stamps: Path | None = None,
    name: str = '',
) -> list[Part]:
    """
    Return a part for each source, or for each camera of each bag.

    Without ``topics`` every camera of a bag is taken. ``labels`` is one folder or topic for all,
    or one for each topic. ``DataError`` and ``BagError`` say what cannot be opened,
    ``ConfigError`` what contradicts itself.
    """
    if not sources:
        return []
    if len(labels) > 1 and len(labels) != len(topics):
        raise ConfigError(
            f'{len(labels)} --labels came with {len(topics)} --topic; give one for all, or one '
            'for each topic'
        )
    names = _names(sources)
    every = name or (names[sources[0]] if len(sources) == 1 else 'recordings')
    parts: list[Part] = []
    for path in sources:
        found: Sequence[str | None] = topics
        if not topics:
            source = open_source(path, rate=rate, stamps=stamps, every_camera=True)
            found = source.topics or (None,)
        cameras = camera_names(tuple(topic for topic in found if topic is not None))
        for number, topic in enumerate(found):
            part = Recording(
                set=every,
                source=names[path] if len(found) == 1 else f'{names[path]}:{cameras[topic or ""]}',
                path=path,
                topic=topic,
                rate=rate,
                stamps=stamps,
                labels=labels[number if len(labels) > 1 else 0] if labels else '',
                light=light,
            )
            # what cannot be opened is told before anything is computed
            part.frames()
            parts.append(part)
    return parts


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest tails of the paths that tell them apart, without suffix."""
    if len(set(paths)) < len(paths):
        raise ConfigError('a source is given twice')
    for depth in range(1, 1 + max(len(path.absolute().parts) for path in paths)):
        names = {path: '/'.join(path.absolute().with_suffix('').parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: str(path) for path in paths}
