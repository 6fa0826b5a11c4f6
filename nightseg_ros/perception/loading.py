# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The networks that a pipeline's routes need, read once and put on a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nightseg_ros.perception.illumination import IlluminationEstimator
from nightseg_ros.perception.pipeline_config import PipelineConfig
from nightseg_ros.perception.router import RouterConfig
from nightseg_ros.perception.segmenter import Segmenter
from nightseg_ros.perception.translator import Translator
from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.runtime.choice import Choice, choose
from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.registry import open_backend
from nightseg_ros.weights import Weights, WeightsError, load_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Networks:
    """What a pipeline is put together from; what no route needs is None."""

    backend: Backend
    day: Segmenter | None
    night: Segmenter | None
    translator: Translator | None
    estimator: IlluminationEstimator


def load_networks(config: PipelineConfig, say: Say) -> Networks:
    """
    Load every network that the config's routes need, once.

    ``say`` hears what takes long, and each licence note. ``WeightsError`` names a file that is
    missing or unfit and the route that needs it, ``BackendError`` what cannot run.
    """
    names = config.weights
    routes = routes_of(config.route, config.router)
    read: dict[str, Weights] = {}
    if routes & {'day', 'translate'}:
        read['day'] = _load('day', names.day, say)
    if 'night' in routes:
        same = 'day' in read and names.night == names.day
        read['night'] = read['day'] if same else _load('night', names.night, say)
    if 'translate' in routes:
        read['translator'] = _load('translate', names.translator, say)
    estimator = IlluminationEstimator.load(_load('auto', names.illumination, say).path)
    choice = _choose(config, [read[name] for name in ('day', 'night') if name in read], say)
    backend = open_backend(choice.backend, choice.device, config.threads)
    day = night = translator = None
    if 'day' in read:
        day = Segmenter(read['day'], backend, say)
    if 'night' in read:
        shared = read['night'] is read.get('day')
        night = day if shared else Segmenter(read['night'], backend, say)
    if 'translator' in read:
        translator = Translator(read['translator'], backend, say)
    return Networks(
        backend=backend, day=day, night=night, translator=translator, estimator=estimator
    )


def settled(config: PipelineConfig, say: Say = lambda text: None) -> PipelineConfig:
    """
    Return the config with the backend that 'auto' means on this machine.

    Several pipelines that have to give the same labels, such as those that share the cores, must
    not choose one by one. Raises as ``load_networks`` does.
    """
    routes = routes_of(config.route, config.router)
    names = {'day': routes & {'day', 'translate'}, 'night': routes & {'night'}}
    weights = [
        _load(name, getattr(config.weights, name), lambda text: None)
        for name, needed in names.items()
        if needed
    ]
    choice = _choose(config, weights, say)
    return replace(config, backend=choice.backend, device=choice.device)


def routes_of(route: str, router: RouterConfig) -> set[str]:
    """Return the routes that can be taken, by the router's table where ``route`` is 'auto'."""
    return set(router.table.routes()) if route == 'auto' else {route}


def _choose(config: PipelineConfig, segmenters: Sequence[Weights], say: Say) -> Choice:
    size = fit(720, 1280, config.long_side or segmenters[0].metadata.long_side)
    return choose(
        segmenters, size.padded, backend=config.backend, device=config.device,
        threads=config.threads, say=say,
    )  # fmt: skip


def _load(route: str, name: str, say: Say) -> Weights:
    if not name:
        key = {'translate': 'translator', 'auto': 'illumination'}.get(route, route)
        raise WeightsError(f"route '{route}' needs weights, but weights.{key} is empty")
    try:
        weights = load_weights(name)
    except WeightsError as error:
        raise WeightsError(f"route '{route}': {error}") from error
    if weights.metadata.license:
        say(f'{weights.path.name}: {weights.metadata.license}')
    return weights
