# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""An evaluation from its plan to its files: metrics.json, frames.jsonl, samples and labels."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from nightseg_ros import __version__
from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.evaluation.fleet import part_folder, run_here, run_processes, run_ray
from nightseg_ros.evaluation.gallery import Candidate, group_of, select
from nightseg_ros.evaluation.lineup import Lineup
from nightseg_ros.evaluation.metrics import BootstrapConfig, SegmentationScores
from nightseg_ros.evaluation.part import Pictures, Recording
from nightseg_ros.evaluation.plan import Plan
from nightseg_ros.evaluation.record import Records, frames_on_record
from nightseg_ros.evaluation.summary import VERSION, SetResult, read_set
from nightseg_ros.files import partial_file, replace_file
from nightseg_ros.outputs import check_output
from nightseg_ros.taxonomy import Taxonomy

PARTS = '.parts'
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
    lineup: Lineup,
    out: Path,
    settings: EvaluationSettings,
    *,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Carry out the plan, write everything to ``out`` and return what metrics.json holds.

    ``lineup`` are the plan's configurations, loaded; other processes load their own.

    An interrupted evaluation goes on where it was. ``ConfigError`` names what is different now
    from then; ``DataError``, ``BagError`` and ``WeightsError`` come from what is evaluated.
    """
    scores = SegmentationScores(lineup.taxonomy, settings.bootstrap, settings.classes)
    described = lineup.describe()
    parts = out / PARTS
    _check_out(plan, out)
    _begin(plan, parts, plan.fingerprint(described), settings.restart, say)
    started = time.monotonic()

    def poll() -> None:
        runs = len(plan.configurations)
        advance(
            sum(
                frames_on_record(part_folder(parts, number), runs, lineup.taxonomy)
                for number in range(len(plan.parts))
            )
        )

    if settings.ray:
        run_ray(plan, parts, settings.ray, settings.workers, poll)
    elif settings.workers > 1:
        run_processes(plan, parts, settings.workers, poll)
    else:
        run_here(plan, lineup, parts, advance)
    seconds = time.monotonic() - started
    result = _header(plan, lineup.taxonomy, described, settings)
    result |= summarise(plan, out, scores)
    result['wall_s'] = round(seconds, 3)
    result['streams'] = lineup.streams
    with partial_file(out / 'metrics.json') as partial:
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        # a byte of a name that is no UTF-8 becomes JSON's own escape
        partial.write_text(_packed(text) + '\n', encoding='utf-8', errors='backslashreplace')
    shutil.rmtree(parts)
    return result


def summarise(plan: Plan, out: Path, scores: SegmentationScores) -> dict[str, Any]:
    """Score the finished parts below ``out``; write frames.jsonl, samples and labels."""
    folders = [part_folder(out / PARTS, number) for number in range(len(plan.parts))]
    result: dict[str, Any] = {'sets': {}, 'runs': {}, 'compare': []}
    samples: dict[str, list[dict[str, Any]]] = {}
    hidden = out / '.samples'
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    with (
        partial_file(out / 'frames.jsonl') as partial,
        partial.open('w', encoding='utf-8', errors='backslashreplace') as log,
    ):
        for name in plan.sets():
            found = read_set(name, plan, folders, scores)
            result['sets'][name] = found.describe()
            result['runs'] |= found.runs
            result['compare'] += found.compare()
            chosen = _chosen(name, plan, folders, found)
            runs = list(found.runs)
            for number in plan.sets()[name]:
                records = Records(folders[number], len(plan.configurations), scores.taxonomy)
                for index, lines in enumerate(records.lines()):
                    for run, line in zip(runs, lines):
                        log.write(json.dumps({'run': run, **line}, ensure_ascii=False) + '\n')
                    if (number, index) in chosen:
                        chosen[number, index].lines += lines
            samples |= _samples(name, plan, folders, list(chosen.values()), hidden)
    for run_name, entries in samples.items():
        result['runs'][run_name]['samples'] = entries
    shutil.rmtree(out / 'samples', ignore_errors=True)
    hidden.rename(out / 'samples')
    if plan.save_labels:
        _move_labels(plan, folders, out / 'labels')
    return result


def _check_out(plan: Plan, out: Path) -> None:
    """Raise ``OutputError`` where results would replace something else, or what is evaluated."""
    inputs: set[str | Path] = set()
    for part in plan.parts:
        if isinstance(part, Pictures):
            inputs |= {path.parent for path in part.files}
        elif isinstance(part, Recording):
            # a topic is no path, and exists as none
            others = (part.labels, part.light, part.stamps)
            inputs |= {part.path, *(name for name in others if name)}
    for name in ('samples', 'labels') if plan.save_labels else ('samples',):
        check_output(out / name, 'an evaluation', _is_ours, inputs=inputs)
    check_output(
        out / PARTS, 'an evaluation', lambda parts: (parts / _PLAN).is_file(), inputs=inputs
    )


def _is_ours(folder: Path) -> bool:
    """Tell samples and labels by the results beside them, finished or not."""
    out = folder.parent
    if (out / PARTS / _PLAN).is_file():
        return True
    try:
        return 'runs' in json.loads((out / 'metrics.json').read_text(encoding='utf-8'))
    except (OSError, ValueError, TypeError):
        return False


@dataclass(kw_only=True)
class _Sample:
    kind: str
    part: int
    index: int
    lines: list[dict[str, Any]] = field(default_factory=list)


def _begin(
    plan: Plan, parts: Path, fingerprint: dict[str, Any], restart: bool,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Make the folder of the records, or see that the one there is of the same plan."""
    noted = parts / _PLAN
    if restart:
        shutil.rmtree(parts, ignore_errors=True)
    if noted.exists():
        before = json.loads(noted.read_text(encoding='utf-8'))
        for key, value in fingerprint.items():
            if before.get(key) != value:
                raise ConfigError(
                    f"'{parts.parent}' holds an interrupted evaluation with other {key}: give the "
                    'same again, another --out, or --restart to drop it'
                )
        # what a killed run was about to write (files.py) would travel with the saved labels
        for left in parts.rglob('.*-*.*'):
            left.unlink(missing_ok=True)
        say(f"going on with the interrupted evaluation in '{parts.parent}'")
        return
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    replace_file(noted, json.dumps(fingerprint, indent=1).encode())


def _header(
    plan: Plan, taxonomy: Taxonomy, described: list[dict[str, Any]], settings: EvaluationSettings
) -> dict[str, Any]:
    bootstrap = to_mapping(settings.bootstrap)
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
        'bootstrap': bootstrap,
        'classes': list(settings.classes),
        'configurations': [
            {'name': item.name, 'options': to_mapping(item.config), 'pipeline': pipeline}
            for item, pipeline in zip(plan.configurations, described)
        ],
    }


def _chosen(
    name: str, plan: Plan, folders: Sequence[Path], found: SetResult
) -> dict[tuple[int, int], _Sample]:
    """Choose the frames of a set that are shown, by part and number."""
    mious = [table.miou for table in found.tables]
    candidates = []
    start = 0
    for position, number in enumerate(plan.sets()[name]):
        for path in (folders[number] / 'samples').iterdir():
            if path.name.isdigit():
                index = int(path.name)
                values = tuple(_known(column[start + index]) for column in mious)
                stamp = int(found.tables[0].stamp[start + index])
                group = group_of(index, stamp, bool(found.sequence[start + index]))
                candidates.append(Candidate(part=number, index=index, group=group, mious=values))
        start += int((found.tables[0].part == position).sum())
    scored = mious[0][~np.isnan(mious[0])]
    median = float(np.median(scored)) if len(scored) else None
    return {
        (item.part, item.index): _Sample(kind=kind, part=item.part, index=item.index)
        for kind, item in select(candidates, median)
    }


def _samples(
    name: str, plan: Plan, folders: Sequence[Path], chosen: list[_Sample], target: Path
) -> dict[str, list[dict[str, Any]]]:
    """Put the chosen frames' pictures into ``target``; return the entries of each run."""
    entries: dict[str, list[dict[str, Any]]] = {
        plan.run_name(name, run): [] for run in range(len(plan.configurations))
    }
    for sample in chosen:
        kept = folders[sample.part] / 'samples' / f'{sample.index:06d}'
        line = sample.lines[0]
        folder = f'{slug(name)}/{sample.kind}-{slug(line["source"])}-{slug(line["frame"])}'
        shutil.copytree(kept, target / folder)
        for run, line in enumerate(sample.lines):
            truth, labels = f'{folder}/truth.png', f'{folder}/labels-{run}.png'
            entries[plan.run_name(name, run)].append(
                {
                    'kind': sample.kind,
                    **{
                        key: line[key]
                        for key in (
                            'frame', 'source', 'stamp', 'miou', 'pixel_acc', 'score', 'state',
                            'route',
                        )
                    },
                    'image': f'samples/{folder}/image.jpg',
                    'labels': f'samples/{labels}' if (target / labels).exists() else None,
                    'truth': f'samples/{truth}' if (target / truth).exists() else None,
                }
            )  # fmt: skip
    return entries


def _move_labels(plan: Plan, folders: Sequence[Path], target: Path) -> None:
    """Put the masks under ``labels/RUN/SOURCE/``."""
    shutil.rmtree(target, ignore_errors=True)
    for number, part in enumerate(plan.parts):
        source = getattr(part, 'source', '')
        for run in range(len(plan.configurations)):
            kept = folders[number] / 'labels' / str(run)
            if not kept.is_dir():
                continue
            folder = target / slug(plan.run_name(part.set, run)) / slug(source)
            folder.mkdir(parents=True, exist_ok=True)
            for path in kept.iterdir():
                path.rename(folder / path.name)


def slug(name: str) -> str:
    """Return a name as a file may be called everywhere."""
    return re.sub(r'[^\w.=+-]+', '_', name).strip('.')


def _packed(text: str) -> str:
    """Put lists of numbers on one line, so that a person can read the file."""
    return re.sub(
        r'\[[\s\d.,e+-]+\]', lambda found: re.sub(r'\s+', ' ', found[0]).replace('[ ', '['), text
    ).replace(' ]', ']')


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


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
