# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Folder layouts as pairs of patterns: which label image belongs to which picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nightseg_ros.data.label_map import LabelMap
from nightseg_ros.data.sample import IMAGE_SUFFIXES, DataError, LabelFile, Sample

LIGHTS = ('day', 'dusk', 'night')
#: What the fields of a pattern were in a path, such as {'source': 'aachen', 'name': 'a_1'}.
Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What lies in the folders of a data set, whole or not."""

    samples: list[Sample]
    """Every picture, sorted by path; ``label`` is where its labels should be."""
    fields: list[Fields]
    """The fields of each sample's path."""
    unlabelled: list[Sample]
    """Samples whose labels are not there, though the data set has labels."""
    orphans: list[Path]
    """Label images without a picture."""

    def only(self, word: str) -> Listing:
        """
        Keep what has ``word`` for its light, its source or a field of its path.

        ``DataError`` lists the words there are where that would be nothing.
        """
        keep = [
            index
            for index, (sample, fields) in enumerate(zip(self.samples, self.fields))
            if word in (sample.light, sample.source, *fields.values())
        ]
        if not keep:
            known = {x for s in self.samples for x in (s.light, s.source) if x}
            raise DataError(f"nothing in it is of '{word}'; there is {', '.join(sorted(known))}")
        kept = [self.samples[index] for index in keep]
        images = {sample.image for sample in kept}
        return Listing(
            samples=kept,
            fields=[self.fields[index] for index in keep],
            unlabelled=[sample for sample in self.unlabelled if sample.image in images],
            orphans=[path for path in self.orphans if word in path.parts or word in path.name],
        )


def list_pairs(
    root: Path,
    images: str,
    labels: str = '',
    label_map: LabelMap | None = None,
    *,
    light: str | None | Mapping[str, str] | Callable[[Fields], str | None] = None,
    source: str | Callable[[Fields], str] = '',
    keep: Callable[[Fields], bool] = lambda fields: True,
    **given: str,
) -> Listing:
    """
    List the pictures below ``root`` that match one pattern, and their labels by another.

    Patterns are relative paths in which ``{field}`` stands for a part of a name: the value in
    ``given``, or else anything, and the same in both patterns. An ending ``.*`` is any of
    ``IMAGE_SUFFIXES``. Without ``labels`` nothing is labelled; bare paths are given where there
    is no ``label_map``. ``light`` is that of every picture, or a table from the field
    ``{light}``; ``source`` is every picture's, the field ``{source}`` if empty. ``keep`` leaves
    out what it says no to. ``DataError`` names a folder that is missing, or a light that is none.
    """
    if given.get('split') == '':
        raise DataError('it has splits; write ADAPTER:ROOT:SPLIT')
    folder = root / _fixed_part(images, given)
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'")
    found = [(f, path) for f, path in _matches(root, images, given) if keep(f)]
    wanted: dict[tuple[tuple[str, str], ...], Path] = {}
    if labels:
        wanted = {_key(f): path for f, path in _matches(root, labels, given) if keep(f)}
    used = set()
    samples, unlabelled = [], []
    for fields, path in found:
        label = there = None
        if labels:
            there = wanted.get(_key(fields))
            used.add(there)
            where = there or root / labels.format(**given, **fields)
            label = where if label_map is None else LabelFile(where, label_map)
        sample = Sample(
            image=path,
            label=label,
            source=source(fields) if callable(source) else source or fields['source'],
            light=check_light(_light(light, fields)),
        )
        samples.append(sample)
        if labels and there is None:
            unlabelled.append(sample)
    return Listing(
        samples=samples,
        fields=[fields for fields, _ in found],
        unlabelled=unlabelled,
        orphans=[path for path in wanted.values() if path not in used],
    )


def check_light(light: str | None) -> str | None:
    """Return the light, None for an empty one; ``DataError`` where it is no known light."""
    if light and light not in LIGHTS:
        raise DataError(f"light is one of {', '.join(LIGHTS)}, got '{light}'")
    return light or None


def _light(
    light: str | None | Mapping[str, str] | Callable[[Fields], str | None], fields: Fields
) -> str | None:
    if callable(light):
        return light(fields)
    if isinstance(light, Mapping):
        return light.get(fields['light'])
    return light


def _key(fields: Fields) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(fields.items()))


def _matches(root: Path, pattern: str, given: Mapping[str, str]) -> Iterator[tuple[Fields, Path]]:
    """Yield the fields and the path of each visible file that matches, sorted by path."""
    any_suffix = pattern.endswith('.*')
    parts = re.split(r'\{(\w+)\}', pattern.removesuffix('.*'))
    glob, expression = '', ''
    for index, part in enumerate(parts):
        if index % 2 == 0:
            glob += part
            expression += re.escape(part)
        elif part in given:
            glob += _escape_glob(given[part])
            expression += re.escape(given[part])
        else:
            glob += '*'
            expression += f'(?P<{part}>[^/]+)'
    expression += r'\.\w+' if any_suffix else ''
    for path in sorted(root.glob(glob + ('.*' if any_suffix else ''))):
        if path.name.startswith('.') or (any_suffix and path.suffix.lower() not in IMAGE_SUFFIXES):
            continue
        match = re.fullmatch(expression, path.relative_to(root).as_posix())
        if match:
            yield match.groupdict(), path


def _escape_glob(text: str) -> str:
    return re.sub(r'([*?[])', r'[\1]', text)


def _fixed_part(pattern: str, given: Mapping[str, str]) -> str:
    """Return the folders of a pattern that come before the first unknown field."""
    filled = re.sub(r'\{(\w+)\}', lambda m: given.get(m[1], '*'), pattern)
    return filled.partition('*')[0].rpartition('/')[0]
