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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import cv2
import numpy as np

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night.methods import NightMaker, night_maker
from nightseg_ros.data.night.presets import NightConfig
from nightseg_ros.data.night.scene import Bytes
from nightseg_ros.data.sample import (
    DataError,
    LabelFile,
    Sample,
    read_image,
    read_labels,
    write_labels,
)
from nightseg_ros.data.synthesis_config import SynthesisConfig
from nightseg_ros.files import replace_file
from nightseg_ros.outputs import check_output
from nightseg_ros.taxonomy import TAXONOMIES
from nightseg_ros.weights import Weights, load_weights

MANIFEST = 'manifest.json'


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
    if config.taxonomy not in TAXONOMIES:
        raise ConfigError(f"no taxonomy '{config.taxonomy}'; there are {list(TAXONOMIES)}")
    taxonomy = TAXONOMIES[config.taxonomy]
    every = [sample for spec in config.data for sample in open_dataset(spec, taxonomy)]
    chosen = choose(len(every), config)
    for index in chosen:
        if every[index].label is None:
            raise DataError(
                f"'{every[index].image}' has no labels; a night keeps the day's labels"
            )
    references = [sample for spec in config.reference for sample in open_dataset(spec, taxonomy)]
    weights = load_weights(config.weights) if config.weights else None
    settings = _settings(config, every, chosen, references, weights)
    if config.force or not out.is_dir():
        _check_out(out, [*every, *references])
    elif any(out.iterdir()):
        _check_settings(_read(out / MANIFEST), settings, out)
        say(f"'{out}' is there already, whole and with these settings")
        return Synthesized(folder=out, count=len(chosen), of=len(every), made=0)

    maker = night_maker(config, taxonomy, every, references, weights, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f'.{out.name}.partial'
    with _locked(partial):
        before = _read(partial / MANIFEST)
        if config.force or before is None:
            _clear(partial)
            _write_json(partial / MANIFEST, settings)
        else:
            _check_settings(before, settings, partial)
        for folder in ('images', 'labels'):
            (partial / folder).mkdir(exist_ok=True)
        there = {path.stem for path in (partial / 'images').glob('[!.]*')}
        if there:
            say(f'going on after {len(there)} of {len(chosen)} pictures')
        entries, made = [], 0
        names = _names([every[index] for index in chosen])
        for number, (index, name) in enumerate(zip(chosen, names), start=1):
            if name not in there:
                rng = np.random.default_rng((config.seed, index, 2))
                _convert(every[index], name, partial, maker, rng, config.quality)
                made += 1
            entries.append(_entry(every[index], name, partial))
            progress(number, len(chosen))
        for left in partial.rglob('.*'):
            left.unlink()
        _write_json(partial / 'taxonomy.json', taxonomy.to_dict())
        _write_json(partial / MANIFEST, {**settings, 'images': entries})
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    return Synthesized(folder=out, count=len(chosen), of=len(every), made=made)


def _check_out(out: Path, samples: Sequence[Sample]) -> None:
    """Raise ``DataError`` where ``out`` is no night of this tool, or touches an input."""
    labels = [sample.label for sample in samples]
    inputs = {sample.image.parent for sample in samples}
    inputs |= {label.path.parent for label in labels if isinstance(label, LabelFile)}
    check_output(out, 'a synthetic night', _is_ours, inputs=inputs, error=DataError)


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but what its manifest lists."""
    try:
        manifest = _read(folder / MANIFEST) or {}
        listed = {entry[key] for entry in manifest['images'] for key in ('image', 'label')}
        version = manifest['version']
    except (KeyError, TypeError):
        return False
    listed |= {MANIFEST, 'taxonomy.json'}
    files = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_symlink() or not path.is_dir()
    }
    return version == 1 and files <= listed


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


def _convert(
    day: Sample,
    name: str,
    folder: Path,
    maker: NightMaker,
    rng: np.random.Generator,
    quality: int,
) -> None:
    """Write the labels, then the picture: each is whole or not there."""
    assert day.label is not None
    image, labels = read_image(day.image), read_labels(day.label)
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"'{day.label}' is {labels.shape}, its image {image.shape[:2]}; sizes must agree"
        )
    guess = labels if day.scene is None else read_labels(day.scene)
    night = maker(image, guess, rng)
    label = folder / 'labels' / f'{name}.png'
    if _stores_ids(day.label):
        replace_file(label, day.label.read_bytes())
    else:
        write_labels(label, labels)
    replace_file(folder / 'images' / f'{name}.jpg', _jpeg(night, quality))


def _entry(day: Sample, name: str, folder: Path) -> dict[str, str]:
    """Return what the manifest says of a picture."""
    picture, label = f'images/{name}.jpg', f'labels/{name}.png'
    return {
        'image': picture,
        'label': label,
        'source': str(day.image),
        'source_sha256': _sha256([day.image]),
        'label_sha256': _sha256([folder / label]),
        'sha256': _sha256([folder / picture]),
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
    days: Sequence[Sample],
    chosen: Sequence[int],
    references: Sequence[Sample],
    weights: Weights | None,
) -> dict[str, Any]:
    """Return what the bytes of the result depend on, in JSON types."""
    settings: dict[str, Any] = {
        'version': 1,
        'method': config.method,
        'seed': config.seed,
        'count': len(chosen),
        'ratio': round(len(chosen) / len(days), 6),
        'of': len(days),
        'data': list(config.data),
        'data_sha256': _sha256(_files(days[index] for index in chosen)),
        'taxonomy': config.taxonomy,
        'quality': config.quality,
    }
    if config.method == 'physical':
        settings['night'] = to_mapping(from_mapping(NightConfig, config.night, where='night'))
    if config.method == 'fourier':
        settings['beta'] = list(config.beta)
    if config.method in ('statistics', 'fourier'):
        settings['reference'] = list(config.reference)
        settings['reference_sha256'] = _sha256(_files(references))
    if weights is not None:
        settings['weights'] = weights.path.name
        settings['weights_sha256'] = weights.sha256
        settings['styles'] = list(config.styles)
        settings['long_side'] = config.long_side or weights.metadata.long_side
        settings['backend'] = config.backend
        settings['device'] = config.device
    loaded: dict[str, Any] = json.loads(json.dumps(settings))
    return loaded


def _files(samples: Iterable[Sample]) -> Iterator[Path | LabelFile]:
    for sample in samples:
        yield sample.image
        if sample.label is not None:
            yield sample.label


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


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
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


def _sha256(files: Iterable[Path | LabelFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
