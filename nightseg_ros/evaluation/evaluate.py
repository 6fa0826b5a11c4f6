# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""An evaluation from its shards to its files: metrics.json, frames.jsonl, samples and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
import hashlib
from importlib.metadata import PackageNotFoundError, version
import itertools
import json
import os
from pathlib import Path
import platform
import re
import shutil
import time
from typing import Any

import cv2
from nightseg_ros import __version__
from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.evaluation.inference import Candidate, FinishedShard, select
from nightseg_ros.evaluation.metrics import BootstrapConfig, SegmentationScores, VERSION
from nightseg_ros.evaluation.sources import refuse_shared, Shard
from nightseg_ros.evaluation.summary import SetScores
from nightseg_ros.evaluation.variants import Variants
from nightseg_ros.evaluation.workers import run_here, run_processes, run_ray
from nightseg_ros.files import partial_file, process_context, read_json, replace_file
from nightseg_ros.outputs import check_output, locked
from nightseg_ros.runtime.backends import processor
import numpy as np

#: Finished shards, while the evaluation runs or after it was interrupted.
SHARDS = '.shards'
_PLAN = 'plan.json'
#: Lists of numbers, which stand on one line, so that a person can read the file.
_LISTS = re.compile(r'\[\n([\s\d.,e+-]+)\]')


def evaluate(
    shards: Sequence[Shard],
    variants: Variants,
    out: Path,
    *,
    save_labels: bool = False,
    bootstrap: BootstrapConfig | None = None,
    classes: Sequence[str] = (),
    workers: int = 1,
    ray: str = '',
    restart: bool = False,
    command: Sequence[str] = (),
    log: Callable[[str], None] = lambda text: None,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Run the shards through the variants; write to ``out`` and return what metrics.json holds.

    Other processes load variants of their own. ``save_labels`` keeps every mask; ``classes``
    are those of ``miou_subset``; ``ray`` is 'local', an address, or '' for none.

    An interrupted evaluation goes on with the shards that were not finished, unless ``restart``.
    ``ConfigError`` names what is different now from then; ``DataError``, ``BagError`` and
    ``WeightsError`` come from what is evaluated.
    """
    bootstrap = bootstrap or BootstrapConfig()
    scores = SegmentationScores(variants.taxonomy, bootstrap, classes)
    described = variants.describe()
    folder = out / SHARDS
    check_outputs(shards, out, save_labels=save_labels)
    fingerprint = _fingerprint(shards, variants, described) | {'save_labels': save_labels}
    with locked(folder, ConfigError):
        _go_on(folder, fingerprint, restart, log)
        started = time.monotonic()
        members = variants.configurations
        paths = [folder / f'{number:05d}.npz' for number in range(len(shards))]
        if ray:
            run_ray(shards, members, paths, ray, workers, save_labels, advance)
        elif workers > 1 and (context := process_context()):
            run_processes(shards, members, paths, workers, save_labels, advance, context)
        else:
            run_here(shards, variants, paths, save_labels, advance)
        seconds = time.monotonic() - started
        finished = [FinishedShard(path) for path in paths]
        refuse_shared((s.source, found.note['labels']) for s, found in zip(shards, finished))
        # of other numbers; a run that is killed from here on leaves nothing that looks whole
        labels = out / 'labels'
        inputs = {path.resolve() for shard in shards for path in shard.inputs}
        inside = any(path.is_relative_to(labels.resolve()) for path in inputs)
        if labels.is_dir() and not inside and _is_ours(labels):
            shutil.rmtree(labels)
        for name in ('metrics.json', 'report.html'):
            (out / name).unlink(missing_ok=True)
        result = {
            **_header(variants, described),
            'command': list(command),
            'taxonomy': variants.taxonomy.to_dict(),
            'bootstrap': to_mapping(bootstrap),
            'classes': list(classes),
            'save_labels': save_labels,
            **_summarise(shards, finished, variants, out, scores, save_labels),
            'wall_s': round(seconds, 3),
            'streams': variants.streams,
        }
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        text = _LISTS.sub(lambda numbers: f'[{" ".join(numbers[1].split())}]', text)
        # a byte of a name that is no UTF-8 becomes JSON's own escape
        replace_file(out / 'metrics.json', f'{text}\n'.encode(errors='backslashreplace'))
        shutil.rmtree(folder)
    return result


def check_outputs(shards: Sequence[Shard], out: Path, *, save_labels: bool) -> None:
    """
    Raise ``OutputError`` where results would replace something else, or what is evaluated.

    ``ConfigError`` where masks would replace one another.
    """
    masks: Counter[tuple[str, str, str]] = Counter()
    for shard in shards:
        if shard.frames is not None:
            masks['sources', slug(shard.set_name), slug(shard.source)] += 1
        masks.update(('pictures', slug(shard.set_name), s.image.stem) for s in shard.samples)
    for (what, name, stem), times in masks.most_common(1):
        if save_labels and times > 1:
            raise ConfigError(
                f"{times} {what} of '{name}' are called '{stem}', so that their masks would "
                'overwrite one another; rename them, or leave --save-labels out'
            )
    inputs = {path for shard in shards for path in shard.inputs}
    results = [SHARDS, 'metrics.json', 'frames.jsonl', 'report.html', 'samples']
    for name in results + ['labels'] * save_labels:
        folder = name in (SHARDS, 'samples', 'labels')
        check_output(out / name, 'an evaluation', _is_ours, folder=folder, inputs=inputs)


def _is_ours(path: Path) -> bool:
    """Tell what an evaluation wrote by the results beside it, finished or not."""
    plan = read_json(path.with_name(SHARDS) / _PLAN)
    metrics = read_json(path.with_name('metrics.json'))
    if path.name != 'labels':
        return bool(plan) or isinstance(metrics.get('runs'), dict)
    # without --save-labels they may be anybody's
    return bool(plan.get('save_labels') or metrics.get('save_labels'))


def _go_on(
    folder: Path, fingerprint: dict[str, Any], restart: bool, log: Callable[[str], None]
) -> None:
    """Leave the finished shards of the same plan in the folder, and no others."""
    noted = folder / _PLAN
    # without their plan shards are what a killed run was about to remove
    for left in folder.iterdir() if restart or not noted.exists() else ():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if noted.exists():
        before = json.loads(noted.read_text(encoding='utf-8'))
        # earlier versions did not tell it
        before['versions'].setdefault('opencv', cv2.__version__)
        for key, value in fingerprint.items():
            if before.get(key) != value:
                raise ConfigError(
                    f"'{folder.parent}' holds an interrupted evaluation with other {key}: "
                    'give the same again, another --out, or --restart to drop it'
                )
        # what a killed run was about to write (files.py)
        for left in folder.glob('.*-*.*'):
            left.unlink()
        log(f"going on with the interrupted evaluation in '{folder.parent}'")
    else:
        replace_file(noted, json.dumps(fingerprint, indent=1).encode())


def _fingerprint(
    shards: Sequence[Shard], variants: Variants, described: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what an interrupted evaluation must have in common with the one that goes on."""
    files = hashlib.sha256()
    for path in (path for shard in shards for path in shard.files()):
        status = path.stat()
        files.update(os.fsencode(f'{path} {status.st_size} {status.st_mtime_ns}\n'))
    result: dict[str, Any] = {
        'sources': [hashlib.sha256(repr(shard).encode()).hexdigest() for shard in shards],
        'files (size or time)': files.hexdigest(),
        'configurations': {k: to_mapping(v) for k, v in variants.configurations.items()},
        'backend or weights': described,
        'versions': {'nightseg': __version__, **_versions()},
    }
    return {key: json.loads(json.dumps(value)) for key, value in result.items()}


def _summarise(
    shards: Sequence[Shard], every: Sequence[FinishedShard], variants: Variants, out: Path,
    scores: SegmentationScores, save_labels: bool,
) -> dict[str, Any]:  # fmt: skip
    """Score the finished shards; write frames.jsonl, samples and labels."""
    result: dict[str, Any] = {'sets': {}, 'runs': {}, 'compare': []}
    samples, labels = (out / SHARDS / name for name in ('samples', 'labels'))
    for folder in (samples, labels):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with (
        partial_file(out / 'frames.jsonl') as partial,
        partial.open('w', encoding='utf-8', errors='backslashreplace') as log,
    ):
        for name in dict.fromkeys(shard.set_name for shard in shards):
            parts = [pair for pair in zip(shards, every) if pair[0].set_name == name]
            found = SetScores(name, parts, variants, scores)
            for lines in found.lines:
                for run, line in zip(found.runs, lines):
                    log.write(json.dumps({'run': run, **line}, ensure_ascii=False) + '\n')
            entries = _samples(name, parts, found, samples)
            for scored, shown in zip(found.runs.values(), entries):
                scored['samples'] = shown
            result['sets'][name] = found.describe()
            result['runs'] |= found.runs
            result['compare'] += found.compare()
    for shard, finished in [*zip(shards, every)] if save_labels else []:
        names = variants.run_names(shard.set_name)
        # a data set's masks lie side by side: they are named by image
        source = slug(shard.source) if shard.frames else ''
        stems = [lines[0]['frame'].replace('/', '_') for lines in finished.lines()]
        for number, file, content in finished.files('labels'):
            place = labels / slug(names[number]) / source
            place.mkdir(parents=True, exist_ok=True)
            (place / f'{stems[int(Path(file).stem)]}.png').write_bytes(content)
    for folder in (samples, labels) if save_labels else (samples,):
        shutil.rmtree(out / folder.name, ignore_errors=True)
        folder.rename(out / folder.name)
    return result


def _samples(
    name: str, parts: Sequence[tuple[Shard, FinishedShard]], found: SetScores, target: Path
) -> list[list[dict[str, Any]]]:
    """Write the pictures of the frames that are shown; return the entries of each run."""
    kept: dict[Candidate, dict[str, bytes]] = {}
    first = [0, *np.cumsum([finished.note['frames'] for _, finished in parts]).tolist()]
    for place, (_, finished) in enumerate(parts):
        shown = {
            number: Candidate(number, group, tuple(mious), shard=place)
            for number, group, mious, _ in finished.note['samples']
        }
        for index, file, content in finished.files('samples'):
            kept.setdefault(shown[index], {})[file] = content
    scored = [lines[0]['miou'] for lines in found.lines if lines[0]['miou'] is not None]
    entries: list[list[dict[str, Any]]] = [[] for _ in found.runs]
    for kind, item in select(list(kept), float(np.median(scored)) if scored else None):
        lines = found.lines[first[item.shard] + item.number]
        stem = f'{slug(name)}/{kind}-{slug(lines[0]["source"])}-{slug(lines[0]["frame"])}'
        # road.png and road.jpg
        stems = (stem if number == 1 else f'{stem}-{number}' for number in itertools.count(1))
        folder = next(place for place in stems if not (target / place).exists())
        (target / folder).mkdir(parents=True)
        for file, content in kept[item].items():
            (target / folder / file).write_bytes(content)
        for run, line in enumerate(lines):
            keys = ('frame', 'source', 'stamp', 'miou', 'pixel_acc', 'score', 'state', 'route')
            entry = {'kind': kind, **{key: line[key] for key in keys}}
            files = {'image': 'image.jpg', 'labels': f'labels-{run}.png', 'truth': 'truth.png'}
            for key, file in files.items():
                entry[key] = f'samples/{folder}/{file}' if file in kept[item] else None
            entries[run].append(entry)
    return entries


def slug(name: str) -> str:
    """Return a name as a file may be called everywhere; a long one is cut and gets a hash."""
    safe = re.sub(r'[^\w.=+-]+', '_', name).strip('.') or '_'
    if len(safe) > 80:
        safe = f'{safe[:71]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}'
    return safe


def _header(variants: Variants, described: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        'version': VERSION,
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'nightseg': __version__,
        'machine': {
            'platform': platform.platform(),
            'cpu': processor().get('model name', platform.processor()),
            'threads': os.cpu_count() or 1,
            'python': platform.python_version(),
            **_versions(),
        },
        'route': next(iter(variants.configurations.values())).route,
        'pipeline': described[0],
        'configurations': [
            {'name': name, 'options': to_mapping(config), 'pipeline': pipeline}
            for (name, config), pipeline in zip(variants.configurations.items(), described)
        ],
    }


def _versions() -> dict[str, str | None]:
    """Return the versions of what computes; None for what is not installed."""
    found: dict[str, str | None] = dict.fromkeys(('numpy', 'torch', 'openvino', 'onnxruntime'))
    for name in found:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    # whose package has two names; it decodes and resizes
    return found | {'opencv': cv2.__version__}
