# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Synthetic night on disk: a seeded choice of labelled day images, converted, labels copied.

The folder appears under its name only when it is whole; until then it grows in a hidden one
beside it, from which an interrupted run goes on. Every picture is a function of the seed and
its place in the data alone, so a resumed run writes the same bytes as one that was let be.
Numpy and what needs it is imported inside the functions: ``--help`` reads the settings only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import Annotated, Any, Literal, TYPE_CHECKING

from nightseg_ros.config import ConfigError, from_mapping, Limited, Limits, Natural, to_mapping
from nightseg_ros.files import read_json, replace_file
from nightseg_ros.outputs import check_output

if TYPE_CHECKING:
    from nightseg_ros.data.sample import Sample
    from nightseg_ros.weights import Weights

MANIFEST = 'manifest.json'
#: Half side of the swapped Fourier square above which ghosts of the reference show.
LARGEST_BETA = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisConfig(Limited):
    """Turn labelled day images into synthetic night; 'folder:OUT:night' reads the result."""

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder to write: images/, labels/ and manifest.json."""
    ratio: float | None = None
    """Share of the images to convert, above 0 to 1; give this or 'count'."""
    count: Annotated[int | None, Limits(1)] = None
    """Number of images to convert."""
    method: Literal['physical', 'statistics', 'fourier', 'generator', 'darken'] = 'physical'
    """'physical' relights by a model, 'statistics' and 'fourier' take colours from real night
    frames, 'generator' runs a trained one, 'darken' is a crude baseline."""
    reference: tuple[str, ...] = ()
    """Real night frames for 'statistics' and 'fourier'; labels are used only where they come
    with some."""
    weights: str = ''
    """Day→night weights for 'generator'."""
    styles: tuple[str, ...] = ()
    """Cameras whose nights are drawn from, for a generator that knows several; none: any."""
    taxonomy: str = 'camvid11'
    """What the label ids mean."""
    seed: int = 0
    """Another seed, other images and other nights."""
    beta: tuple[float, float] = (0.005, 0.02)
    """Half side of the Fourier square as a share of the shorter side, at most 0.02."""
    night: dict[str, Any] = field(default_factory=dict)
    """Looks of the physical model, a mapping as ``NightConfig`` has it."""
    long_side: Natural = 0
    """Long side of the generator's input in pixels; 0: what it was trained at."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino'] = 'auto'
    """What runs the generator."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where it runs."""
    quality: Annotated[int, Limits(1, 100)] = 95
    """JPEG quality of the result."""
    force: bool = False
    """Replace the folder, also one that was made with other settings."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if self.ratio is not None and self.count is not None:
            raise ValueError("'ratio' and 'count' say the same; give one of them")
        if self.ratio is not None and not 0.0 < self.ratio <= 1.0:
            raise ValueError(f"'ratio' is a share above 0 and at most 1, got {self.ratio}")
        low, high = self.beta
        if not 0.0 <= low <= high <= LARGEST_BETA:
            raise ValueError(f"'beta' is [low, high] within 0 to {LARGEST_BETA}, got {self.beta}")
        if (self.method == 'generator') != bool(self.weights):
            raise ValueError("'weights' and the method 'generator' belong together")


@dataclass(frozen=True, slots=True)
class Synthesized:
    """What a run made: ``count`` pictures of ``of`` day images, ``made`` of them just now."""

    folder: Path
    count: int
    of: int
    made: int


def synthesize(
    config: SynthesisConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda text: None,
) -> Synthesized:
    """
    Write ``out/images/STEM.jpg``, ``out/labels/STEM.png`` and ``out/manifest.json``.

    Labels are those of the day. The manifest holds the settings, the hashes of weights and
    references, and for each picture its source and the hashes of source, label and result.
    ``DataError`` where ``out`` was made with other settings or by something else, where the data
    has no labels or too few images, and where another process is at work on it.
    """
    from nightseg_ros.data.datasets import open_all
    from nightseg_ros.data.night_methods import convert, night_maker
    from nightseg_ros.data.sample import DataError, labelled
    from nightseg_ros.taxonomy import TAXONOMIES
    from nightseg_ros.weights import load_weights
    import numpy as np

    out = Path(config.out)
    if config.taxonomy not in TAXONOMIES:
        raise ConfigError(f"no taxonomy '{config.taxonomy}'; there are {list(TAXONOMIES)}")
    taxonomy = TAXONOMIES[config.taxonomy]
    days = open_all(config.data, taxonomy)
    chosen = choose(len(days), config)
    labelled([days[index] for index in chosen], "a night keeps the day's labels")
    references = open_all(config.reference, taxonomy)
    weights = load_weights(config.weights) if config.weights else None
    settings = _settings(config, days, chosen, references, weights)
    if not config.force and out.is_dir() and any(out.iterdir()):
        _check_settings(read_json(out / MANIFEST), settings, out)
        log(f"'{out}' is there already, whole and with these settings")
        return Synthesized(out, len(chosen), len(days), 0)
    inputs = {path.parent for path in _files([*days, *references])}
    check_output(out, 'a synthetic night', _is_ours, inputs=inputs, error=DataError)

    maker = night_maker(config, taxonomy, days, references, weights, log)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f'.{out.name}.partial'
    with _locked(partial):
        before = read_json(partial / MANIFEST)
        if config.force or not before:
            for item in partial.iterdir():
                shutil.rmtree(item) if item.is_dir() else item.unlink()
            _write_json(partial / MANIFEST, settings)
        else:
            _check_settings(before, settings, partial)
        for folder in ('images', 'labels'):
            (partial / folder).mkdir(exist_ok=True)
        there = {path.stem for path in (partial / 'images').glob('[!.]*')}
        if there:
            log(f'going on after {len(there)} of {len(chosen)} pictures')
        entries, made = [], 0
        names = _names([days[index] for index in chosen])
        for number, (index, name) in enumerate(zip(chosen, names), start=1):
            day = days[index]
            image, label = partial / 'images' / f'{name}.jpg', partial / 'labels' / f'{name}.png'
            if name not in there:
                rng = np.random.default_rng((config.seed, index, 2))
                night, labels = convert(day, maker, rng, config.quality)
                # the picture comes last: what goes on takes its label for whole
                replace_file(label, labels)
                replace_file(image, night)
                made += 1
            entries.append({
                'image': str(image.relative_to(partial)),
                'label': str(label.relative_to(partial)),
                'source': str(day.image),
                'source_sha256': _sha256([day.image]),
                'label_sha256': _sha256([label]),
                'sha256': _sha256([image]),
            })  # fmt: skip
            progress(number, len(chosen))
        for left in partial.rglob('.*'):
            left.unlink()
        _write_json(partial / 'taxonomy.json', taxonomy.to_dict())
        _write_json(partial / MANIFEST, {**settings, 'images': entries})
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    return Synthesized(out, len(chosen), len(days), made)


def choose(total: int, config: SynthesisConfig) -> list[int]:
    """
    Return which of ``total`` images are converted, in order.

    A larger number keeps the choice of a smaller one with the same seed.
    """
    from nightseg_ros.data.sample import DataError
    import numpy as np

    if config.ratio is None and config.count is None:
        raise ConfigError("how many images are to be converted? Give 'ratio' or 'count'")
    count = config.count if config.count is not None else round((config.ratio or 0.0) * total)
    if count > total:
        raise DataError(f"'count' is {count}, but the data holds {total} images")
    if count < 1:
        raise DataError(f"'ratio' {config.ratio} of {total} images is none; give a larger one")
    order = np.random.default_rng((config.seed, 1)).permutation(total)
    return sorted(int(index) for index in order[:count])


def _names(samples: Sequence[Sample]) -> list[str]:
    """Return a file stem for each sample, its own where no two are alike."""
    seen: Counter[str] = Counter()
    names = []
    for stem in (sample.image.stem for sample in samples):
        seen[stem] += 1
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
    from nightseg_ros.data.night_presets import NightConfig

    elsewhere = ('out', 'force', 'sheet', 'ratio', 'count')
    settings = {key: v for key, v in to_mapping(config).items() if key not in elsewhere}
    settings |= {
        'version': 1,
        'count': len(chosen),
        'ratio': round(len(chosen) / len(days), 6),
        'of': len(days),
        'night': to_mapping(from_mapping(NightConfig, config.night, where='night')),
        'data_sha256': _sha256(_files(days[index] for index in chosen)),
        'reference_sha256': _sha256(_files(references)),
        'weights': '' if weights is None else weights.path.name,
        'weights_sha256': '' if weights is None else weights.sha256,
    }
    loaded: dict[str, Any] = json.loads(json.dumps(settings))
    return loaded


def _check_settings(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    from nightseg_ros.data.sample import DataError

    if not before:
        raise DataError(
            f"'{folder}' exists and was not made by `nightseg synthesize`; give another --out"
        )
    for key in dict.fromkeys([*now, *before]):
        if key != 'images' and before.get(key) != now.get(key):
            raise DataError(
                f"'{folder}' was made with {key} = {before.get(key)!r}, now it is "
                f'{now.get(key)!r}; give the old setting, another --out, or --force'
            )


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but what its manifest lists."""
    manifest = read_json(folder / MANIFEST)
    try:
        listed = {entry[key] for entry in manifest['images'] for key in ('image', 'label')}
        version = manifest['version']
    except (KeyError, TypeError):
        return False
    found = (path for path in folder.rglob('*') if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix() for path in found}
    return version == 1 and files <= {*listed, MANIFEST, 'taxonomy.json'}


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Hold the hidden folder; the kernel lets go of it when this process ends, however."""
    from nightseg_ros.data.sample import DataError

    partial.mkdir(exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DataError(f"another process is at work on '{partial}'; wait for it") from error
    finally:
        os.close(handle)


def _files(samples: Iterable[Sample]) -> Iterator[Path]:
    for sample in samples:
        yield sample.image
        if sample.label is not None:
            yield sample.label.path


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
