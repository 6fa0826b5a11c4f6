# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""An evaluation from its plan to its files: metrics.json, frames.jsonl, samples and labels."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from nightseg_ros import __version__
from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.evaluation.inference import FinishedShard
from nightseg_ros.evaluation.metrics import BootstrapConfig, SegmentationScores
from nightseg_ros.evaluation.samples import Candidate, group_of, select
from nightseg_ros.evaluation.sources import Plan, SequenceShard
from nightseg_ros.evaluation.summary import SetScores
from nightseg_ros.evaluation.variants import Variants
from nightseg_ros.evaluation.workers import run_here, run_processes, run_ray, shard_file
from nightseg_ros.files import partial_file, replace_file
from nightseg_ros.outputs import check_output
from nightseg_ros.taxonomy import Taxonomy

#: Of metrics.json.
VERSION = 2
#: Finished shards, while the evaluation runs or after it was interrupted.
SHARDS = '.shards'
_PLAN = 'plan.json'


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """How a plan is carried out; none of it changes a count."""

    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    classes: tuple[str, ...] = ()
    """Classes of ``miou_subset``."""
    workers: int = 1
    ray: str = ''
    """'local', an address, or '' for no Ray."""
    restart: bool = False
    """Drop what an interrupted evaluation left."""
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.workers < 1:
            raise ConfigError(f'--workers is at least 1, got {self.workers}')


def evaluate(
    plan: Plan,
    variants: Variants,
    out: Path,
    settings: EvaluationSettings,
    *,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Carry out the plan, write everything to ``out`` and return what metrics.json holds.

    ``variants`` are the plan's configurations, loaded; other processes load their own.

    An interrupted evaluation goes on with the shards that were not finished. ``ConfigError`` names
    what is different now from then; ``DataError``, ``BagError`` and ``WeightsError`` come from
    what is evaluated.
    """
    scores = SegmentationScores(variants.taxonomy, settings.bootstrap, settings.classes)
    described = variants.describe()
    folder = out / SHARDS
    _check_output(plan, out)
    with _shards(folder, _fingerprint(plan, described), settings.restart, say):
        started = time.monotonic()
        if settings.ray:
            run_ray(plan, folder, settings.ray, settings.workers, advance)
        elif settings.workers > 1:
            run_processes(plan, folder, settings.workers, advance)
        else:
            run_here(plan, variants, folder, advance)
        seconds = time.monotonic() - started
        result = {
            **_header(plan, variants.taxonomy, described, settings),
            **_summarise(plan, out, scores),
            'wall_s': round(seconds, 3),
            'streams': variants.streams,
        }
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        # a byte of a name that is no UTF-8 becomes JSON's own escape
        content = (_packed(text) + '\n').encode(errors='backslashreplace')
        replace_file(out / 'metrics.json', content)
        shutil.rmtree(folder)
    return result


def _check_output(plan: Plan, out: Path) -> None:
    """Raise ``OutputError`` where results would replace something else, or what is evaluated."""
    inputs: set[str | Path] = set()
    for shard in plan.shards:
        if isinstance(shard, SequenceShard):
            # a topic is no path, and exists as none
            others = (shard.labels, shard.light, shard.stamps)
            inputs |= {shard.path, *(name for name in others if name)}
        else:
            inputs |= {path.parent for path in shard.files}

    def ours(folder: Path) -> bool:
        """Tell what an evaluation wrote by the results beside it, finished or not."""
        if (out / SHARDS / _PLAN).is_file():
            return True
        try:
            return 'runs' in json.loads((out / 'metrics.json').read_text(encoding='utf-8'))
        except (OSError, ValueError, TypeError):
            return False

    for name in (SHARDS, 'samples', 'labels') if plan.save_labels else (SHARDS, 'samples'):
        check_output(out / name, 'an evaluation', ours, inputs=inputs)


@contextmanager
def _shards(
    folder: Path, fingerprint: dict[str, Any], restart: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Make the folder of finished shards, or see that the one there is of the same plan."""
    if restart:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / _PLAN
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another process is evaluating into '{folder.parent}'; wait for it, or give "
                'another --out'
            ) from error
        if noted.exists():
            before = json.loads(noted.read_text(encoding='utf-8'))
            for key, value in fingerprint.items():
                if before.get(key) != value:
                    raise ConfigError(
                        f"'{folder.parent}' holds an interrupted evaluation with other {key}: "
                        'give the same again, another --out, or --restart to drop it'
                    )
            # what a killed run was about to write (files.py)
            for left in folder.glob('.*-*.*'):
                left.unlink()
            say(f"going on with the interrupted evaluation in '{folder.parent}'")
        else:
            replace_file(noted, json.dumps(fingerprint, indent=1).encode())
        yield
    finally:
        os.close(lock)


def _fingerprint(plan: Plan, described: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Return what an interrupted evaluation must have in common with the one that goes on.

    ``described`` is what ``Variants.describe`` says; files go in with their size and time.
    """
    files = hashlib.sha256()
    for shard in plan.shards:
        for path in shard.files:
            status = path.stat()
            files.update(os.fsencode(f'{path} {status.st_size} {status.st_mtime_ns}\n'))
    sources = [
        repr(shard)
        if isinstance(shard, SequenceShard)
        else f'{shard.spec}, {shard.count}, {sorted({item.source for item in shard.samples})}'
        for shard in plan.shards
    ]
    result = {
        'sources': sources,
        'files (size or time)': files.hexdigest(),
        'configurations': {item.name: to_mapping(item.config) for item in plan.configurations},
        'backend or weights': described,
        'save_labels': plan.save_labels,
    }
    normal: dict[str, Any] = json.loads(json.dumps(result))
    return normal


def _summarise(plan: Plan, out: Path, scores: SegmentationScores) -> dict[str, Any]:
    """Score the finished shards; write frames.jsonl, samples and labels."""
    paths = [shard_file(out / SHARDS, number) for number in range(len(plan.shards))]
    result: dict[str, Any] = {'sets': {}, 'runs': {}, 'compare': []}
    samples = out / SHARDS / 'samples'
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    with (
        partial_file(out / 'frames.jsonl') as partial,
        partial.open('w', encoding='utf-8', errors='backslashreplace') as log,
    ):
        for name, numbers in plan.sets().items():
            finished = [FinishedShard(paths[number]) for number in numbers]
            found = SetScores(name, plan, finished, scores)
            runs = list(found.runs)
            for lines in found.lines:
                for run, line in zip(runs, lines):
                    log.write(json.dumps({'run': run, **line}, ensure_ascii=False) + '\n')
            for run, entries in zip(runs, _samples(name, finished, found, samples)):
                found.runs[run]['samples'] = entries
            result['sets'][name] = found.describe()
            result['runs'] |= found.runs
            result['compare'] += found.compare()
    shutil.rmtree(out / 'samples', ignore_errors=True)
    samples.rename(out / 'samples')
    if plan.save_labels:
        _save_labels(plan, paths, out / 'labels')
    return result


def _samples(
    name: str, finished: Sequence[FinishedShard], found: SetScores, target: Path
) -> list[list[dict[str, Any]]]:
    """Write the pictures of the frames that are shown; return the entries of each run."""
    candidates: list[Candidate] = []
    files: dict[tuple[int, int], dict[str, bytes]] = {}
    first = [0, *np.cumsum([shard.note['frames'] for shard in finished]).tolist()]
    for place, shard in enumerate(finished):
        for index, file, content in shard.files('samples'):
            files.setdefault((place, index), {})[file] = content
    for place, index in files:
        lines = found.lines[first[place] + index]
        group = group_of(index, lines[0]['stamp'], finished[place].note['sequence'])
        mious = tuple(line['miou'] for line in lines)
        candidates.append(Candidate(shard=place, index=index, group=group, mious=mious))
    scored = [lines[0]['miou'] for lines in found.lines if lines[0]['miou'] is not None]
    entries: list[list[dict[str, Any]]] = [[] for _ in found.runs]
    for kind, item in select(candidates, float(np.median(scored)) if scored else None):
        lines = found.lines[first[item.shard] + item.index]
        kept = files[item.shard, item.index]
        path = Path(slug(name)) / '-'.join(
            (kind, slug(lines[0]['source']), slug(lines[0]['frame']))
        )
        (target / path).mkdir(parents=True)
        for file, content in kept.items():
            (target / path / file).write_bytes(content)
        for run, line in enumerate(lines):
            labels = f'labels-{run}.png'
            keys = ('frame', 'source', 'stamp', 'miou', 'pixel_acc', 'score', 'state', 'route')
            entries[run].append(
                {
                    'kind': kind,
                    **{key: line[key] for key in keys},
                    'image': f'samples/{path}/image.jpg',
                    'labels': f'samples/{path}/{labels}' if labels in kept else None,
                    'truth': f'samples/{path}/truth.png' if 'truth.png' in kept else None,
                }
            )
    return entries


def _save_labels(plan: Plan, paths: Sequence[Path], target: Path) -> None:
    """Put the masks under ``labels/RUN/SOURCE/``."""
    shutil.rmtree(target, ignore_errors=True)
    for shard, path in zip(plan.shards, paths):
        runs = plan.run_names(shard.set)
        # a data set's masks lie side by side: they are named by image
        source = slug(shard.source) if isinstance(shard, SequenceShard) else ''
        finished = FinishedShard(path)
        names = [lines[0]['frame'].replace('/', '_') for lines in finished.lines()]
        for run, file, content in finished.files('labels'):
            folder = target / slug(runs[run]) / source
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f'{names[int(Path(file).stem)]}.png').write_bytes(content)


def slug(name: str) -> str:
    """Return a name as a file may be called everywhere."""
    return re.sub(r'[^\w.=+-]+', '_', name).strip('.')


def _header(
    plan: Plan, taxonomy: Taxonomy, described: list[dict[str, Any]], settings: EvaluationSettings
) -> dict[str, Any]:
    return {
        'version': VERSION,
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': list(settings.command),
        'nightseg': __version__,
        'machine': {
            'platform': platform.platform(),
            'cpu': _cpu(),
            'threads': os.cpu_count() or 1,
            'python': platform.python_version(),
            **{name: _version(name) for name in ('numpy', 'torch', 'openvino', 'onnxruntime')},
        },
        'route': plan.configurations[0].config.route,
        'pipeline': described[0],
        'taxonomy': taxonomy.to_dict(),
        'bootstrap': to_mapping(settings.bootstrap),
        'classes': list(settings.classes),
        'configurations': [
            {'name': item.name, 'options': to_mapping(item.config), 'pipeline': pipeline}
            for item, pipeline in zip(plan.configurations, described)
        ],
    }


def _packed(text: str) -> str:
    """Put lists of numbers on one line, so that a person can read the file."""
    return re.sub(
        r'\[[\s\d.,e+-]+\]', lambda found: re.sub(r'\s+', ' ', found[0]).replace('[ ', '['), text
    ).replace(' ]', ']')


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor()
