# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Synthetic night on disk: a seeded choice of labelled day images, converted, labels copied.

The folder appears under its name only when it is whole; until then it grows in a hidden one
beside it, from which an interrupted run goes on. Every picture is a function of the seed and
its place in the data alone, so a resumed run writes the same bytes as one that was let be.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.looks import NightConfig
from nightseg_ros.data.sample import (
    DataError,
    LabelFile,
    Sample,
    read_image,
    read_labels,
    write_labels,
)
from nightseg_ros.data.scene import Bytes
from nightseg_ros.data.synthesis_config import SynthesisConfig
from nightseg_ros.data.synthesis_methods import (
    DarkenedDay,
    FourierNight,
    GeneratedNight,
    NightMaker,
    PhysicalNight,
    StatisticsNight,
)
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.weights import Weights, load_weights

MANIFEST = 'manifest.json'
_JOURNAL = 'journal.jsonl'
_SETTINGS = 'settings.json'


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthesized:
    """What a run made."""

    folder: Path
    count: int
    of: int
    """Labelled day images that there were."""
    made: int
    """Pictures of this run; the others were there already."""


def synthesize(
    config: SynthesisConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Synthesized:
    """
    Write ``out/images/STEM.jpg``, ``out/labels/STEM.png`` and ``out/manifest.json``.

    Labels are those of the day. The manifest holds the settings, the hashes of weights and
    references, and for each picture its source and the hashes of source, label and result.
    ``DataError`` where ``out`` was made with other settings or by something else, where the data
    has no labels or too few images, and where another process is at work on it.
    """
    out = Path(config.out)
    taxonomy = _taxonomy(config.taxonomy)
    night = from_mapping(NightConfig, config.night, where='night')
    days = [sample for spec in config.data for sample in open_dataset(spec, taxonomy)]
    chosen = choose(len(days), config)
    for index in chosen:
        if days[index].label is None:
            raise DataError(f"'{days[index].image}' has no labels; a night keeps the day's labels")
    references = [sample for spec in config.reference for sample in open_dataset(spec, taxonomy)]
    weights = load_weights(config.weights) if config.weights else None
    settings = _settings(config, night, len(days), len(chosen), references, weights)
    if out.exists() and not config.force and any(out.iterdir()):
        _check_settings(_read(out / MANIFEST), settings, out)
        _tidy(out)
        say(f"'{out}' is there already, whole and with these settings")
        return Synthesized(folder=out, count=len(chosen), of=len(days), made=0)

    maker = _maker(config, taxonomy, night, days, references, weights, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f'.{out.name}.partial'
    with _at_work(partial):
        if config.force:
            _clear(partial)
        done = _open(partial, settings)
        if done:
            say(f'going on after {len(done)} of {len(chosen)} pictures')
        entries, made = [], 0
        names = _names([days[index] for index in chosen])
        with (partial / _JOURNAL).open('a', encoding='utf-8') as journal:
            for number, (index, name) in enumerate(zip(chosen, names), start=1):
                entry = done.get(name)
                if entry is None or entry['source_sha256'] != _sha256(days[index].image):
                    rng = np.random.default_rng((config.seed, index, 2))
                    entry = _convert(days[index], name, partial, maker, rng, config.quality)
                    journal.write(json.dumps(entry) + '\n')
                    journal.flush()
                    made += 1
                entries.append(entry)
                progress(number, len(chosen))
        _write_json(partial / 'taxonomy.json', taxonomy.to_dict())
        _write_json(partial / MANIFEST, {**settings, 'images': entries})
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
        # last, so that a kill at any moment leaves a folder that goes on or is whole
        _tidy(out)
    return Synthesized(folder=out, count=len(chosen), of=len(days), made=made)


def choose(total: int, config: SynthesisConfig) -> list[int]:
    """
    Return which of ``total`` images are converted, in order.

    A larger number keeps the choice of a smaller one with the same seed.
    """
    if config.ratio is None and config.count is None:
        raise ConfigError("how many images are to be converted? Give 'ratio' or 'count'")
    count = config.count if config.count is not None else round((config.ratio or 0.0) * total)
    if count > total:
        raise DataError(f"'count' is {count}, but the data holds {total} images")
    if count < 1:
        raise DataError(f"'ratio' {config.ratio} of {total} images is none; give a larger one")
    order = np.random.default_rng((config.seed, 1)).permutation(total)
    return sorted(int(index) for index in order[:count])


def _taxonomy(name: str) -> Taxonomy:
    if name not in TAXONOMIES:
        raise ConfigError(f"no taxonomy '{name}'; there are {list(TAXONOMIES)}")
    return TAXONOMIES[name]


def _maker(
    config: SynthesisConfig,
    taxonomy: Taxonomy,
    night: NightConfig,
    days: Sequence[Sample],
    references: Sequence[Sample],
    weights: Weights | None,
    say: Callable[[str], None],
) -> NightMaker:
    if config.method == 'physical':
        return PhysicalNight(night, taxonomy)
    if config.method == 'statistics':
        return StatisticsNight(references, days, taxonomy)
    if config.method == 'fourier':
        return FourierNight(references, config.beta)
    if config.method == 'darken':
        return DarkenedDay()
    assert weights is not None
    return GeneratedNight(
        weights, config.styles, backend=config.backend, device=config.device,
        long_side=config.long_side, say=say,
    )  # fmt: skip


def _convert(
    day: Sample,
    name: str,
    folder: Path,
    maker: NightMaker,
    rng: np.random.Generator,
    quality: int,
) -> dict[str, str]:
    """Write one picture and its labels; return its entry of the manifest."""
    assert day.label is not None
    image, labels = read_image(day.image), read_labels(day.label)
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"'{day.label}' is {labels.shape}, its image {image.shape[:2]}; sizes must agree"
        )
    guess = labels if day.scene is None else read_labels(day.scene)
    night = maker(image, guess, rng)
    picture, label = folder / 'images' / f'{name}.jpg', folder / 'labels' / f'{name}.png'
    content = _jpeg(night, quality)
    picture.write_bytes(content)
    if _stores_ids(day.label):
        shutil.copyfile(day.label.path, label)
    else:
        write_labels(label, labels)
    return {
        'image': f'images/{picture.name}',
        'label': f'labels/{label.name}',
        'source': str(day.image),
        'source_sha256': _sha256(day.image),
        'label_sha256': _sha256(label),
        'sha256': hashlib.sha256(content).hexdigest(),
    }


def _stores_ids(label: Path | LabelFile) -> TypeGuard[LabelFile]:
    """Tell whether a file's own bytes are ids of the taxonomy in use."""
    if isinstance(label, Path) or label.meaning.color or label.path.suffix != '.png':
        return False
    return all(stored == to for stored, to in label.meaning.entries)


def _jpeg(image: Bytes, quality: int) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    good, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not good:
        raise DataError(f'a picture of shape {image.shape} cannot be encoded as JPEG')
    return content.tobytes()


def _names(samples: Sequence[Sample]) -> list[str]:
    """Return a file stem for each sample, its own where no two are alike."""
    seen: dict[str, int] = {}
    names = []
    for sample in samples:
        stem = sample.image.stem
        seen[stem] = seen.get(stem, 0) + 1
        names.append(stem if seen[stem] == 1 else f'{stem}-{seen[stem]}')
    return names


def _settings(
    config: SynthesisConfig,
    night: NightConfig,
    total: int,
    count: int,
    references: Sequence[Sample],
    weights: Weights | None,
) -> dict[str, Any]:
    """Return what the bytes of the result depend on, in JSON types."""
    settings: dict[str, Any] = {
        'version': 1,
        'method': config.method,
        'seed': config.seed,
        'count': count,
        'ratio': round(count / total, 6),
        'of': total,
        'data': list(config.data),
        'taxonomy': config.taxonomy,
        'quality': config.quality,
    }
    if config.method == 'physical':
        settings['night'] = to_mapping(night)
    if config.method == 'fourier':
        settings['beta'] = list(config.beta)
    if config.method in ('statistics', 'fourier'):
        settings['reference'] = list(config.reference)
        settings['reference_sha256'] = _sha256(
            *(file for r in references for file in (r.image, r.label) if file is not None)
        )
    if weights is not None:
        settings['weights'] = weights.path.name
        settings['weights_sha256'] = weights.sha256
        settings['styles'] = list(config.styles)
        settings['long_side'] = config.long_side or weights.metadata.long_side
        settings['backend'] = config.backend
        settings['device'] = config.device
    loaded: dict[str, Any] = json.loads(json.dumps(settings))
    return loaded


def _check_settings(before: dict[str, Any] | None, now: dict[str, Any], folder: Path) -> None:
    if before is None:
        raise DataError(
            f"'{folder}' exists and was not made by `nightseg synthesize`; give another --out"
        )
    for key in dict.fromkeys([*now, *before]):
        if key != 'images' and before.get(key) != now.get(key):
            raise DataError(
                f"'{folder}' was made with {key} = {before.get(key)!r}, now it is "
                f'{now.get(key)!r}; give the old setting, another --out, or --force'
            )


def _open(partial: Path, settings: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return what an interrupted run finished, by name, after a check that it fits this one."""
    done = _finished(partial)
    if done:
        _check_settings(_read(partial / _SETTINGS), settings, partial)
    else:
        _clear(partial)
        _write_json(partial / _SETTINGS, settings)
    for folder in ('images', 'labels'):
        (partial / folder).mkdir(exist_ok=True)
    return done


def _finished(partial: Path) -> dict[str, dict[str, str]]:
    """Return the entries of an interrupted run whose files are whole, by name."""
    try:
        lines = (partial / _JOURNAL).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
            picture, label = partial / entry['image'], partial / entry['label']
            whole = _sha256(picture) == entry['sha256']
            if whole and _sha256(label) == entry['label_sha256']:
                found[picture.stem] = entry
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            # a torn last line, or a file that was never finished: it is made again
            continue
    # the journal is written anew, so that a torn line does not swallow the next one
    text = ''.join(json.dumps(entry) + '\n' for entry in found.values())
    (partial / _JOURNAL).write_text(text, encoding='utf-8')
    return found


@contextmanager
def _at_work(partial: Path) -> Iterator[None]:
    """Hold the hidden folder; the kernel lets go of it when this process ends, however."""
    partial.mkdir(exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is at work on '{partial}'; wait for it") from error
        yield
    finally:
        os.close(handle)


def _tidy(out: Path) -> None:
    for name in (_JOURNAL, _SETTINGS):
        (out / name).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    for item in folder.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def _sha256(*files: Path | LabelFile) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
