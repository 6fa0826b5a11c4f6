# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: safetensors with a JSON metadata string, and a manifest of hashes."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TYPE_CHECKING

from nightseg_ros.config import ConfigError, did_you_mean, from_mapping, Limited, Limits
from nightseg_ros.files import models_dir, replace_file, user_path
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

#: ``sha256sum``'s own format, so that ``sha256sum -c SHA256SUMS`` checks a folder as well.
MANIFEST = 'SHA256SUMS'
#: Beginning of the names of the tensors that `nightseg calibrate` adds to a segmenter's.
RELIABILITY = 'reliability.'
#: Name of the networks that `nightseg import` took from elsewhere: they are a graph and no code.
IMPORTED = 'onnx'
_KEY, _GRAPH = 'nightseg', 'graph'
_MAX_HEADER = 16 * 1024 * 1024


class WeightsError(ValueError):
    """Weights that are missing, damaged, or made for something else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsMetadata(Limited):
    """What describes the weights; it lies inside the file."""

    network: str
    """Name in ``nightseg_ros.networks.REGISTRY``."""
    arch: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network's builder."""
    task: Literal['segment', 'translate', 'illumination'] = 'segment'
    taxonomy: dict[str, Any] | None = None
    """``Taxonomy.to_dict()`` of a segmenter, None for other tasks."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB mean for input in [0, 1]; ImageNet's by default."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    long_side: Annotated[int, Limits(32)] = 480
    """Length in pixels of the input's long side that the network was trained for."""
    temperature: float = 1.0
    """Logits are divided by it before the softmax (Guo et al. 2017), see `nightseg calibrate`."""
    bfloat16: float = 0.0
    """Share of labels that stay the same where OpenVINO computes all but the first layers in
    bfloat16, in the worst of some folders of frames; 0: unknown (`nightseg publish --bf16`)."""
    data: str = ''
    """What it was trained on, in words."""
    ratio: float = 0.0
    """How often a training sample by day became a synthetic night (``augment.night_share``)."""
    license: str = ''  # noqa: A003
    """What the training data allows; the node logs it once when it loads the file."""
    commit: str = ''
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """The training config, seed, steps and machine that made the file."""

    def __post_init__(self) -> None:
        """Refuse values that would silently spoil every mask."""
        Limited.__post_init__(self)
        if not all(value > 0 for value in (self.temperature, *self.std)):
            raise ValueError(
                f"'temperature' and 'std' must be above 0, got {self.temperature}, {self.std}"
            )


class Tensors(UserDict[str, Any]):
    """
    Named numpy arrays, each given out as a torch tensor that shares its memory.

    torch takes two seconds and 200 MB to import; from a cached graph a network runs without.
    """

    data: dict[str, npt.NDArray[Any]]

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.data[name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """One file, read and verified."""

    path: Path
    sha256: str
    metadata: WeightsMetadata
    tensors: Mapping[str, torch.Tensor]
    graph: str = ''
    """The network as ``runtime.export`` has put it into the file, if it has."""

    def described(self) -> Weights:
        """Return the same without tensors: a loaded network has its own, and megabytes count."""
        return replace(self, tensors={}, graph='')

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the tensors as numpy arrays, without torch where they were read from a file."""
        if isinstance(self.tensors, Tensors):
            return self.tensors.data
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}


def save_weights(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor] | Mapping[str, npt.NDArray[Any]],
    metadata: WeightsMetadata,
    *,
    half: bool = False,
) -> None:
    """
    Write a file whole or not at all, and its line of a manifest that lists it.

    ``half`` stores floating tensors as float16; they are read back as float32.
    """
    from safetensors.numpy import save

    if isinstance(state_dict, Tensors):
        state_dict = state_dict.data
    arrays = {
        name: np.asarray(t if isinstance(t, np.ndarray) else t.detach().cpu().numpy(), order='C')
        for name, t in state_dict.items()
    }
    if half:
        arrays = {n: a.astype(np.float16) if a.dtype.kind == 'f' else a for n, a in arrays.items()}
    content = save(arrays, metadata={_KEY: json.dumps(asdict(metadata), sort_keys=True)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_listed(Path(path), content)


def replace_listed(path: Path, content: bytes) -> None:
    """
    Write a weights file, and its line of a manifest that lists it; killed at any moment, it loads.

    Other lines stay: they may be of damaged files, or of files that are not ours.
    """
    manifest = path.parent / MANIFEST
    if path.name not in read_manifest(path.parent):
        replace_file(path, content, durable=True)
        return
    before = manifest.read_text(encoding='utf-8')
    # what is not listed may be the old file or the new one
    replace_file(manifest, _without(before, path.name).encode(), durable=True)
    try:
        replace_file(path, content, durable=True)
    except OSError:
        # it is the old one
        replace_file(manifest, before.encode(), durable=True)
        raise
    list_weights(path)


def set_graph(path: Path, graph: str) -> str:
    """Write a graph into a weights file, as ``replace_listed``, and return the SHA-256."""
    from safetensors.numpy import load, save

    content = path.read_bytes()
    content = save(load(content), metadata={**_header_texts(content), _GRAPH: graph})
    replace_listed(path, content)
    return hashlib.sha256(content).hexdigest()


def network_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the network's own tensors, without those of the reliability of its frames."""
    return {name: t for name, t in tensors.items() if not name.startswith(RELIABILITY)}


def union(texts: Sequence[str], separator: str) -> str:
    """Return what the lists in ``texts`` name, each once and in their order."""
    named = [name for text in texts for name in text.split(separator) if name]
    return separator.join(dict.fromkeys(named))


def has_reliability(weights: Weights) -> bool:
    """Tell whether the weights judge each frame's reliability."""
    return any(name.startswith(RELIABILITY) for name in weights.tensors)


def resolve_weights(name: str | os.PathLike[str]) -> Path:
    """
    Return the file that ``name`` means: a path, or the name of a shipped file.

    A bare name may leave out ``.safetensors``. ``WeightsError`` says where it was looked for.
    """
    path = user_path(name)
    candidates = [path]
    if path.parent == Path('.'):
        candidates += [models_dir() / path, models_dir() / f'{path}.safetensors']
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ', '.join(map(str, candidates))
    shipped = [file.stem for file in models_dir().glob('*.safetensors')]
    raise WeightsError(
        f"weights '{name}' not found; looked for {tried}; `nightseg info` lists the shipped ones"
        f'{did_you_mean(path.name, shipped)}'
    )


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """
    Read and verify a file; float16 tensors come back as float32.

    ``WeightsError`` is raised where the file is missing, is no safetensors file (a renamed pickle
    is never unpickled), has no metadata of ours, holds NaN, or differs from its manifest's hash.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = resolve_weights(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights '{file}' cannot be read: {error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    wanted = read_manifest(file.parent).get(file.name)
    if wanted is not None and wanted != sha256:
        raise WeightsError(
            f"weights '{file}' have SHA-256 {sha256[:12]}… but {MANIFEST} beside them says "
            f'{wanted[:12]}…; the file was damaged or replaced: fetch it again'
        )
    metadata, graph = _header(content, file)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"weights '{file}' are damaged: {error}; fetch them again") from error
    for name, array in arrays.items():
        if array.dtype.kind == 'f' and not np.isfinite(array).all():
            raise WeightsError(
                f"weights '{file}' hold values that are no numbers in '{name}': "
                'the training that made them diverged'
            )
        # the copy may be written to
        arrays[name] = array.astype(np.float32 if array.dtype == np.float16 else array.dtype)
    return Weights(
        path=file, sha256=sha256, metadata=metadata, tensors=Tensors(arrays), graph=graph
    )


def with_style(weights: Weights, style: str) -> Weights:
    """
    Return the weights such that every way to run them draws the night of camera ``style``.

    '' is any camera. ``WeightsError`` lists the cameras that the generator was trained on. The
    hash becomes another one, since it names the exported graph.
    """
    known = weights.metadata.arch.get('styles', ())
    if style and style not in known:
        raise WeightsError(
            f"weights '{weights.path}' know no camera '{style}'; "
            f'they know: {", ".join(known) or "none"}'
        )
    if not known:
        return weights
    arch = {**weights.metadata.arch, 'style': style}
    metadata = replace(weights.metadata, arch=arch)
    sha256 = hashlib.sha256(f'{weights.sha256} {style}'.encode()).hexdigest()
    return replace(weights, metadata=metadata, sha256=sha256)


def read_manifest(folder: Path) -> dict[str, str]:
    """Return file name → SHA-256 as listed in the folder's manifest; empty where there is none."""
    try:
        lines = (folder / MANIFEST).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"manifest '{folder / MANIFEST}' cannot be read: {error}") from error
    return _entries(lines)


def _entries(lines: Iterable[str]) -> dict[str, str]:
    entries = (line.split(maxsplit=1) for line in lines)
    return {
        # `sha256sum ./*` writes './' before each
        entry[1].strip().lstrip('*').removeprefix('./'): entry[0].lower()
        for entry in entries
        if len(entry) == 2
    }


def list_weights(path: Path) -> None:
    """Write a weights file's line of the manifest beside it; other lines stay."""
    manifest = path.parent / MANIFEST
    before = manifest.read_text(encoding='utf-8') if manifest.is_file() else ''
    line = f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n'
    replace_file(manifest, (_without(before, path.name) + line).encode(), durable=True)


def _without(manifest: str, name: str) -> str:
    """Return all lines but that of a file."""
    lines = (line for line in manifest.splitlines() if name not in _entries([line]))
    return ''.join(f'{line}\n' for line in lines)


def _header(content: bytes, file: Path) -> tuple[WeightsMetadata, str]:
    """Parse metadata and graph out of a safetensors header (an 8-byte length, then JSON)."""
    refusal = f"'{file}' is no weights file of nightseg"
    length = int.from_bytes(content[:8], 'little')
    if not 2 <= length <= min(len(content) - 8, _MAX_HEADER):
        raise WeightsError(f'{refusal}: not a safetensors file, or a truncated one')
    try:
        texts = _header_texts(content)
        metadata = from_mapping(WeightsMetadata, json.loads(texts[_KEY]))
        return metadata, str(texts.get(_GRAPH, ''))
    except ConfigError as error:
        raise WeightsError(f'{refusal}: metadata: {error}') from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f'{refusal}: it carries no nightseg metadata; make weights with `nightseg train`'
        ) from error


def _header_texts(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], 'little')
    texts: dict[str, str] = json.loads(content[8:][:length])['__metadata__']
    return texts
