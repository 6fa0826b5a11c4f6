# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Cheap stylisation of an image by a reference: Fourier amplitudes, and CIELAB as floats.

Colours of real night frames by region: sky, ground and what stands on it.

Night frames have no labels. What region a pixel of theirs belongs to is guessed from its row
alone, by how often the region lies there in the labelled day images; where a reference comes
with labels (pseudo-labels, say), those are taken instead.

The ways to make a night of a labelled day image, behind one call.

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
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import cv2
import numpy as np

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data import photometric
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night.model import synthesize_night
from nightseg_ros.data.night.presets import NightConfig, Range, log_uniform, uniform
from nightseg_ros.data.night.scene import Array, Bytes, Role, read_scene, role_table, split_sky
from nightseg_ros.data.sample import (
    DataError,
    LabelFile,
    Sample,
    read_image,
    read_labels,
    write_labels,
)
from nightseg_ros.data.synthesis_config import SynthesisConfig
from nightseg_ros.networks.generators import with_style
from nightseg_ros.outputs import check_output
from nightseg_ros.runtime.backend import Say
from nightseg_ros.runtime.backends import open_backend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import TAXONOMIES, UNLABELLED, Taxonomy
from nightseg_ros.weights import Weights, WeightsError, load_weights


def mix_amplitude(
    image: Bytes, reference: Bytes, *, beta: float = 0.01, strength: float = 1.0
) -> Bytes:
    """
    Swap an image's low Fourier amplitudes for a reference's (FDA, Yang and Soatto 2020).

    Both are uint8 [., ., 3] RGB; the reference is resized. ``beta`` (0 to 0.5) is the half side
    of the swapped square as a share of the shorter side; above 0.02 ghosts of the reference
    show. ``strength`` blends the amplitudes from 0 (the image's) to 1 (the reference's).
    """
    _check(image, 'image')
    _check(reference, 'reference')
    if not 0.0 <= beta <= 0.5:
        raise ValueError(f'beta must be 0 to 0.5, got {beta}')
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f'strength must be 0 to 1, got {strength}')
    height, width = image.shape[:2]
    style = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
    reach = int(np.floor(beta * min(height, width)))
    result = np.empty(image.shape, np.float32)
    for channel in range(3):
        spectrum = np.fft.rfft2(image[..., channel].astype(np.float32))
        other = np.fft.rfft2(style[..., channel].astype(np.float32))
        # the half spectrum starts at frequency 0: low rows lie at both of its ends
        top = (slice(0, min(reach + 1, height)), slice(0, reach + 1))
        windows = [top]
        if reach > 0:
            windows.append((slice(max(height - reach, reach + 1), height), slice(0, reach + 1)))
        for window in windows:
            amplitude = np.abs(spectrum[window])
            wanted = amplitude + strength * (np.abs(other[window]) - amplitude)
            spectrum[window] *= wanted / np.maximum(amplitude, 1e-6)
        result[..., channel] = np.fft.irfft2(spectrum, s=(height, width))
    rounded: Bytes = np.clip(np.rint(result), 0, 255).astype(np.uint8)
    return rounded


def rgb_to_lab(image: Bytes) -> Array:
    """Return CIELAB float32 [H, W, 3] of uint8 RGB."""
    return cv2.cvtColor(image.astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)


def lab_to_rgb(lab: Array) -> Bytes:
    """Return uint8 RGB of CIELAB float32 [H, W, 3]."""
    rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    result: Bytes = np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8)
    return result


def _check(image: Bytes, name: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f'{name} must be uint8 [H, W, 3] RGB and not empty, got {image.dtype} {image.shape}'
        )


#: Bands of rows of the prior; an image's rows are stretched over them.
ROWS = 48
#: Exponent on the guess: above 1 it leans on the rows where a region is alone.
SHARPNESS = 2.0
#: Most that a deviation may grow, which keeps noise and JPEG blocks down.
GROWTH = 3.0


class Region(IntEnum):
    """Parts of a road scene that a night changes differently."""

    SKY = 0
    GROUND = 1
    THINGS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionColors:
    """Mean and standard deviation of CIELAB by ``Region``, float32 [3, 3] each."""

    mean: Array
    deviation: Array


def region_table(taxonomy: Taxonomy) -> Bytes:
    """Return uint8 [256]: the ``Region`` of each label id; void counts as things."""
    regions = {Role.SKY: Region.SKY, Role.ROAD: Region.GROUND, Role.PAVEMENT: Region.GROUND}
    table = np.full(256, Region.THINGS, np.uint8)
    for index, role in enumerate(role_table(taxonomy)):
        table[index] = regions.get(Role(role), Region.THINGS)
    return table


def region_rows(masks: Iterable[Bytes], taxonomy: Taxonomy) -> Array:
    """
    Return float32 [ROWS, 3]: how likely each region is in a row of labelled images.

    ``masks`` are uint8 [H, W] ids of ``taxonomy``, void ignored. It is smoothed over an eighth of
    the height, since another camera's horizon lies elsewhere. Without any labelled pixel every
    region is equally likely everywhere.
    """
    table = region_table(taxonomy)
    counts = np.full((ROWS, len(Region)), 1e-3, np.float64)
    for labels in masks:
        band = np.arange(len(labels)) * ROWS // len(labels)
        known = labels != UNLABELLED
        flat = (band[:, None] * len(Region) + table[labels])[known]
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    smooth = cv2.GaussianBlur(
        counts, (1, 0), 0.1, sigmaY=ROWS / 8, borderType=cv2.BORDER_REPLICATE
    )
    result: Array = (smooth / smooth.sum(1, keepdims=True)).astype(np.float32)
    return result


def region_colors(
    image: Bytes, rows: Array, *, labels: Bytes | None = None, taxonomy: Taxonomy | None = None
) -> RegionColors:
    """
    Measure a real night frame uint8 [H, W, 3] RGB; ``rows`` come from ``region_rows``.

    With ``labels`` (uint8 [H, W] ids of ``taxonomy``) each region that holds at least 1 % of
    the pixels is measured where it is; the others keep the guess by rows.
    """
    height, width = image.shape[:2]
    # a frame of any camera has statistics enough at this size
    factor = min(1.0, 240.0 / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    lab = rgb_to_lab(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    guess = cv2.resize(rows, (len(Region), size[1]), interpolation=cv2.INTER_LINEAR)
    shares = np.repeat(guess**SHARPNESS, size[0], axis=0)
    if labels is not None and taxonomy is not None:
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).ravel()
        found = np.eye(len(Region), dtype=np.float32)[region_table(taxonomy)[small]]
        found[small == UNLABELLED] = 0.0
        enough = found.mean(axis=0) >= 0.01
        shares[:, enough] = found[:, enough]
    shares /= np.maximum(shares.sum(axis=0), 1e-9)
    mean = shares.T @ lab
    deviation = np.sqrt(np.maximum(shares.T @ lab**2 - mean**2, 0.0))
    return RegionColors(mean=mean.astype(np.float32), deviation=deviation.astype(np.float32))


def recolor(
    image: Bytes,
    labels: Bytes,
    colors: RegionColors,
    rng: np.random.Generator,
    *,
    taxonomy: Taxonomy,
    strength: float = 1.0,
) -> Bytes:
    """
    Give each region of a labelled day image a night frame's mean and deviation of CIELAB.

    ``image`` uint8 [H, W, 3] RGB, ``labels`` uint8 [H, W]; the result is uint8 [H, W, 3]. The
    regions are blended by a soft matte of the sky, so that twigs and roofs keep their edges.
    ``strength`` runs from 0 (the image) to 1.
    """
    regions = region_table(taxonomy)[labels]
    scene = read_scene(labels, role_table(taxonomy), rng)
    linear = (image.astype(np.float32) / np.float32(255.0)) ** np.float32(2.2)
    sky, before = split_sky(linear, scene)
    # without the daylight that shines through them, twigs stay dark
    solid = np.rint(before ** np.float32(1 / 2.2) * 255.0).astype(np.uint8)
    ground = cv2.GaussianBlur((regions == Region.GROUND).astype(np.float32), (0, 0), 1.5)
    ground *= 1.0 - sky
    day, things = rgb_to_lab(image), rgb_to_lab(solid)
    result = np.zeros_like(day)
    for region, lab, weight in (
        (Region.SKY, day, sky),
        (Region.GROUND, things, ground),
        (Region.THINGS, things, 1.0 - sky - ground),
    ):
        total = float(weight.sum())
        if total >= 1.0:
            result += weight[..., None] * _matched(lab, weight / total, colors, region)
    if strength < 1.0:
        result = cv2.addWeighted(result, strength, day, 1.0 - strength, 0.0)
    return lab_to_rgb(result)


def _matched(lab: Array, share: Array, colors: RegionColors, region: Region) -> Array:
    """Return CIELAB float32 [H, W, 3] with a region's colours; ``share`` [H, W] adds up to 1."""
    mean = np.tensordot(share, lab, axes=2)
    spread = np.sqrt(np.maximum(np.tensordot(share, lab * lab, axes=2) - mean**2, 0.0))
    # the guess by rows mixes what stands before the sky into its deviation
    growth = 1.0 if region == Region.SKY else GROWTH
    gain = np.clip(colors.deviation[region] / (spread + 1e-3), 0.0, growth)
    result: Array = lab * gain + (colors.mean[region] - mean * gain)
    return result


class NightMaker(Protocol):
    """Makes a night of a day image."""

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """Return uint8 [H, W, 3] RGB for uint8 [H, W, 3] RGB and its ids uint8 [H, W]."""


class PhysicalNight:
    """The model of light and camera of ``data/night.py``."""

    def __init__(self, config: NightConfig, taxonomy: Taxonomy) -> None:
        """Take the looks to draw from."""
        self._config, self._taxonomy = config, taxonomy

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        return synthesize_night(image, labels, rng, self._config, taxonomy=self._taxonomy)


class StatisticsNight:
    """Means and deviations of real night frames, drawn at random, region by region."""

    def __init__(
        self, references: Sequence[Sample], days: Sequence[Sample], taxonomy: Taxonomy
    ) -> None:
        """Learn from the labelled day images in which rows a region lies."""
        self._references = require_references(references, 'statistics')
        self._taxonomy = taxonomy
        self._rows = region_rows(
            (read_labels(day.label) for day in days if day.label is not None), taxonomy
        )
        self._colors: dict[int, RegionColors] = {}

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        index = int(rng.integers(len(self._references)))
        if index not in self._colors:
            reference = self._references[index]
            known = None if reference.label is None else read_labels(reference.label)
            self._colors[index] = region_colors(
                read_image(reference.image), self._rows, labels=known, taxonomy=self._taxonomy
            )
        return recolor(image, labels, self._colors[index], rng, taxonomy=self._taxonomy)


class FourierNight:
    """Low Fourier amplitudes of real night frames, drawn at random (FDA, Yang and Soatto 2020)."""

    def __init__(self, references: Sequence[Sample], beta: Range) -> None:
        """Take the frames and the range of the swapped square; see ``mix_amplitude``."""
        self._references = require_references(references, 'fourier')
        self._beta = beta

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        reference = self._references[int(rng.integers(len(self._references)))]
        return mix_amplitude(image, read_image(reference.image), beta=uniform(rng, self._beta))


class DarkenedDay:
    """A crude night to measure the others against: less light, blobs of lamps, noise, blur."""

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``; the labels are not looked at."""
        height, width = image.shape[:2]
        light = np.full((height, width), log_uniform(rng, (0.02, 0.3)), np.float32)
        # head lamps light the lower half
        light *= np.linspace(1.0, uniform(rng, (1.0, 4.0)), height, dtype=np.float32)[:, None]
        linear: Array = cv2.LUT(image, _linear()) * light[..., None]
        linear += _blobs(height, width, rng)
        encoded = np.clip(linear, 0.0, 1.0) ** np.float32(1 / 2.2)
        dark = np.rint(encoded * 255.0).astype(np.uint8)
        dark = photometric.blur(dark, uniform(rng, (0.0, 1.5)) * width / 480.0)
        return photometric.add_noise(dark, uniform(rng, (1, 6)), uniform(rng, (0.5, 4)), rng)


class GeneratedNight:
    """A day→night generator: any weights whose task is 'translate'."""

    def __init__(
        self,
        weights: Weights,
        styles: Sequence[str],
        *,
        backend: str,
        device: str,
        long_side: int,
        say: Say,
    ) -> None:
        """
        Load it; ``styles`` are the cameras whose nights are drawn from, none means any camera.

        ``WeightsError`` where the weights are for another task or know no such camera.
        """
        if weights.metadata.task != 'translate':
            raise WeightsError(
                f"weights '{weights.path}' are for '{weights.metadata.task}'; the method "
                "'generator' wants a day→night translator"
            )
        if weights.metadata.training.get('way') == 'night_to_day':
            raise WeightsError(f"weights '{weights.path}' turn night into day, not day into night")
        self._backend = open_backend(backend, device)
        self._long_side = long_side or weights.metadata.long_side
        self._runs: list[Callable[[Any], tuple[Any, ...]]] = [
            self._backend.load(with_style(weights, style), say) for style in styles or ('',)
        ]

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``; the labels are not looked at."""
        pixels = self._backend.pixels
        size = fit(image.shape[0], image.shape[1], self._long_side)
        run = self._runs[int(rng.integers(len(self._runs)))]
        (night,) = run(pixels.stack([pixels.shrink(image, 'rgb', size)]))
        return pixels.download(pixels.restore(night[0], size))


def require_references(references: Sequence[Sample], method: str) -> Sequence[Sample]:
    """Return the real night frames, or raise ``DataError`` that says how to give some."""
    if not references:
        raise DataError(
            f"the method '{method}' takes its colours from real night frames: "
            'give some with --reference images:FOLDER'
        )
    return references


@lru_cache(maxsize=1)
def _linear() -> Array:
    table = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
    table.setflags(write=False)
    return table


def _blobs(height: int, width: int, rng: np.random.Generator) -> Array:
    """Return light float32 [H, W, 3] of up to six lamps at random places."""
    light = np.zeros((height, width, 3), np.float32)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(0, 7))):
        y, x = rng.uniform(0.0, 0.8) * height, rng.uniform(0.0, 1.0) * width
        size = log_uniform(rng, (0.005, 0.06)) * width
        squared = (rows - y) ** 2 + (columns - x) ** 2
        glow = np.exp(-squared / (2 * size**2)).astype(np.float32)
        warm = np.array([1.0, uniform(rng, (0.6, 1.0)), uniform(rng, (0.3, 1.0))], np.float32)
        light += glow[..., None] * warm * np.float32(log_uniform(rng, (0.1, 1.5)))
    return light


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
    if config.force or not out.is_dir():
        _check_out(out, [*days, *references])
    elif any(out.iterdir()):
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
    listed |= {MANIFEST, 'taxonomy.json', _JOURNAL, _SETTINGS}
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
