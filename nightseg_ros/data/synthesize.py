# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Synthetic night on disk: a seeded choice of labelled day images, converted, labels copied.

The folder appears under its name only when it is whole. Every picture is a function of the seed
and its place in the data alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.data.datasets import open_all
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_presets import NightConfig
from nightseg_ros.data.night_scene import Bytes
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import (
    DataError,
    encode_labels,
    labelled,
    labels_of,
    read_pair,
    Sample,
)
from nightseg_ros.files import read_json
from nightseg_ros.outputs import require_same, restore, whole_folder
from nightseg_ros.perception.pipeline import load_part
from nightseg_ros.runtime.backend import Log
from nightseg_ros.runtime.backends import open_backend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.weights import load_weights, Weights, WeightsError, with_style
import numpy as np

MANIFEST = 'manifest.json'
#: What the verb may add: pairs of day and night.
SHEET = 'sheet.jpg'
#: What a generator's metadata say that wants a physical night instead of a day.
PHYSICAL_TO_NIGHT = 'physical_to_night'

NightMaker = Callable[[Bytes, Bytes, np.random.Generator], Bytes]


def synthesize(
    config: SynthesisConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    log: Callable[[str], None] = lambda text: None,
) -> tuple[int, int]:
    """
    Write ``out/images/STEM.jpg``, ``out/labels/STEM.png`` and ``out/manifest.json``.

    Returns the number of nights, and of the day images that they were chosen from. Labels are
    those of the day. The manifest holds the settings, the hash of the weights, and for each
    picture its source and the hashes of source, label and result. ``DataError`` where ``out`` was
    made with other settings or by something else, where the data has no labels or too few images,
    and where another process is at work on it.
    """
    out = Path(config.out)
    if config.taxonomy not in TAXONOMIES:
        raise ConfigError(f"no taxonomy '{config.taxonomy}'; there are {list(TAXONOMIES)}")
    taxonomy = TAXONOMIES[config.taxonomy]
    samples = open_all(config.data, taxonomy)
    # what tells no light is taken for day
    days = [sample for sample in samples if sample.light in ('day', None)]
    counts = Counter(sample.light for sample in samples if sample.light not in ('day', None))
    others = ', '.join(f'{count} {light}' for light, count in counts.items())
    if not days:
        raise DataError(f'a night is made of a day; the data holds {others or "nothing"}')
    if others:
        log(f'left out, which are no day: {others}')
    chosen = choose(len(days), config)
    labelled([days[index] for index in chosen], "a night keeps the day's labels")
    weights = load_weights(config.weights) if config.weights else None
    settings = _settings(config, days, chosen, weights)
    restore(out, DataError)
    before = {} if config.force else read_json(out / MANIFEST)
    if entries := before.pop('images', None):
        # earlier versions did not tell the meanings
        before = {'meanings_sha256': settings['meanings_sha256'], **before}
        require_same(out, before, settings, DataError, 'another --out, or --force')
        for name in (entry[key] for entry in entries for key in ('image', 'label')):
            if not (out / name).is_file():
                raise DataError(f"'{out / name}' is gone; give --force to make all anew")
        log(f"'{out}' is there already, whole and with these settings")
        return len(chosen), len(days)
    inputs = {path.parent for path in _files(samples)}
    with whole_folder(
        out, 'a synthetic night', _is_ours, inputs=inputs, force=True, error=DataError
    ) as unfinished:
        maker = night_maker(config, taxonomy, weights, log)
        for folder in ('images', 'labels'):
            (unfinished / folder).mkdir()
        entries = []
        names = _names([days[index] for index in chosen])
        for number, (index, name) in enumerate(zip(chosen, names), start=1):
            day = days[index]
            rng = np.random.default_rng((config.seed, index, 2))
            night, labels = convert(day, maker, rng, config.quality)
            image, label = f'images/{name}.jpg', f'labels/{name}.png'
            (unfinished / image).write_bytes(night)
            (unfinished / label).write_bytes(labels)
            entries.append({
                'image': image,
                'label': label,
                'source': str(day.image),
                'source_sha256': _sha256([day.image]),
                'label_sha256': hashlib.sha256(labels).hexdigest(),
                'sha256': hashlib.sha256(night).hexdigest(),
            })  # fmt: skip
            progress(number, len(chosen))
        for file, content in (
            ('taxonomy.json', taxonomy.to_dict()), (MANIFEST, {**settings, 'images': entries}),
        ):  # fmt: skip
            text = json.dumps(content, indent=1) + '\n'
            (unfinished / file).write_text(text, encoding='utf-8')
    return len(chosen), len(days)


def choose(total: int, config: SynthesisConfig) -> list[int]:
    """Return which of ``total`` images are converted; a larger number keeps a smaller's."""
    if config.ratio is None and config.count is None:
        raise ConfigError("how many images are to be converted? Give 'ratio' or 'count'")
    count = config.count if config.count is not None else round((config.ratio or 0.0) * total)
    if count > total:
        raise DataError(f"'count' is {count}, but the data holds {total} day images")
    if count < 1:
        raise DataError(f"'ratio' {config.ratio} of {total} images is none; give a larger one")
    order = np.random.default_rng((config.seed, 1)).permutation(total)
    return sorted(int(index) for index in order[:count])


def _names(samples: Sequence[Sample]) -> list[str]:
    """Return a file stem for each sample, its own where no two are alike."""
    names: dict[str, None] = {}
    for stem in (sample.image.stem for sample in samples):
        others = (f'{stem}-{number}' for number in itertools.count(2))
        names[next(name for name in itertools.chain([stem], others) if name not in names)] = None
    return [*names]


def _settings(
    config: SynthesisConfig, days: Sequence[Sample], chosen: Sequence[int], weights: Weights | None
) -> dict[str, Any]:
    """Return what the bytes of the result depend on, in JSON types."""
    elsewhere = ('out', 'force', 'sheet', 'ratio', 'count')
    settings = {key: v for key, v in to_mapping(config).items() if key not in elsewhere}
    labels = [(day.label, day.scene) for day in (days[index] for index in chosen)]
    # a taxonomy.json changes what the same bytes mean
    meanings = repr([label and label.meaning for label, _ in labels]).encode()
    guesses = (scene.path for _, scene in labels if scene is not None)
    return settings | {
        'version': 1,
        'count': len(chosen),
        'ratio': round(len(chosen) / len(days), 6),
        'of': len(days),
        'night': to_mapping(from_mapping(NightConfig, config.night, where='night')),
        'data_sha256': _sha256(_files(days[index] for index in chosen)),
        # a missing guess is named when it is read
        'meanings_sha256': _sha256(filter(Path.is_file, guesses), meanings),
        'weights': '' if weights is None else weights.path.name,
        'weights_sha256': '' if weights is None else weights.sha256,
    }


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but what its manifest lists."""
    manifest = read_json(folder / MANIFEST)
    names = {'images', 'labels', MANIFEST, 'taxonomy.json', SHEET}
    try:
        names |= {entry[key] for entry in manifest['images'] for key in ('image', 'label')}
        version = manifest['version']
    except (KeyError, TypeError):
        return False
    return version == 1 and {folder / name for name in names}.issuperset(folder.rglob('*'))


def _files(samples: Iterable[Sample]) -> Iterator[Path]:
    for sample in samples:
        yield sample.image
        if sample.label is not None:
            yield sample.label.path


def _sha256(files: Iterable[Path], begin: bytes = b'') -> str:
    digest = hashlib.sha256(begin)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


# -- one picture -----------------------------------------------------------------------------


def night_maker(
    config: SynthesisConfig, taxonomy: Taxonomy, weights: Weights | None, log: Log
) -> NightMaker:
    """
    Return what makes a night of RGB uint8 [H, W, 3], its ids uint8 [H, W] and a generator.

    It is the physical model, or ``weights`` whose task is 'translate'; ``config.styles`` are the
    cameras whose nights are drawn from, none means any. ``WeightsError`` where the weights do not
    turn day into night or know no such camera.
    """
    night = from_mapping(NightConfig, config.night, where='night')
    physical = partial(synthesize_night, config=night, taxonomy=taxonomy)
    if weights is None:
        return physical
    way = weights.metadata.training.get('way')
    if way == 'night_to_day' or weights.metadata.network == 'fast_generator':
        raise WeightsError(f"weights '{weights.path}' turn night into day, not day into night")
    backend = open_backend(config.backend, config.device, weights=[weights])
    long_side = config.long_side or weights.metadata.long_side
    runs = [
        load_part(with_style(weights, style), backend, log, 'translate').run
        for style in config.styles or ('',)
    ]

    def generated(image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        if way == PHYSICAL_TO_NIGHT:
            image = physical(image, labels, rng)
        pixels = backend.pixels
        size = fit(image.shape[0], image.shape[1], long_side)
        run = runs[int(rng.integers(len(runs)))]
        (night,) = run(pixels.stack([pixels.shrink(image, 'rgb', size)]))
        return pixels.download(pixels.restore(night[0], size))

    return generated


def convert(
    day: Sample, maker: NightMaker, rng: np.random.Generator, quality: int
) -> tuple[bytes, bytes]:
    """Return the night as JPEG of ``quality`` and its labels as PNG of ids."""
    assert day.label is not None
    image, labels = read_pair(day)
    night = maker(image, labels if day.scene is None else labels_of(day.scene, image), rng)
    content = encode_picture('night.jpg', night, quality=quality)
    if day.label.stores_ids():
        return content, day.label.path.read_bytes()
    return content, encode_labels(labels)
