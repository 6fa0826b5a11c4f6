# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Several configurations of the pipeline over the same frames, sharing what they can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import copy
from dataclasses import replace
import os
import queue
from typing import Any

from nightseg_ros.config import ConfigError, from_mapping, load_yaml, to_mapping
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, routes_of, WithheldError
from nightseg_ros.perception.result import NOTHING, Result, Want
from nightseg_ros.perception.router import RouterConfig, RouteTable
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import load_weights, WeightsError

_WANT = Want(labels=True, confidence=True)
#: Camera sizes that the networks are made ready for: images of a data set may all differ.
_SIZES = 4
#: More would only wait for the interpreter.
_MOST_STREAMS = 4
#: Ways to run the pipeline by the name that their scores get, '' for the only one.
Configurations = Mapping[str, PipelineConfig]


def configurations(base: PipelineConfig, compare: Sequence[str]) -> Configurations:
    """
    Return ``base`` changed by each of ``KEY=VALUE[,KEY=VALUE]``, or ``base`` alone as ''.

    Keys are the node's: route, long_side, weights.night, router.dwell_dark_s, router.table.dusk,
    … ``ConfigError`` names an unknown key, a wrong value, and a configuration given twice.
    """
    if not compare:
        return {'': base}
    twice = {name for name in compare if compare.count(name) > 1}
    if twice:
        raise ConfigError(f"configuration '{min(twice)}' is given twice")
    return {name: _changed(base, name) for name in compare}


def _changed(base: PipelineConfig, changes: str) -> PipelineConfig:
    values = to_mapping(base)
    for change in changes.split(','):
        key, equals, value = change.partition('=')
        if not equals:
            raise ConfigError(f"'{change}' is no KEY=VALUE, such as route=night")
        *parents, last = key.strip().split('.')
        inside = values
        for parent in parents:
            if not isinstance(inside.get(parent), dict):
                inside[parent] = {}
            inside = inside[parent]
        # a name stays a name, even where YAML would read yes or 1e3
        try:
            inside[last] = value if isinstance(inside.get(last), str) else load_yaml(value)
        except ValueError as error:
            raise ConfigError(f"'{change}' has no value that can be read: {error}") from error
    return from_mapping(PipelineConfig, values)


def taxonomy_of(config: PipelineConfig) -> Taxonomy:
    """Return what a pipeline will label, from its weights' metadata alone."""
    weights = load_weights(config.weights.night if config.route == 'night' else config.weights.day)
    if weights.metadata.taxonomy is None:
        raise WeightsError(f"weights '{weights.path}' are no segmenter's: they name no classes")
    return Taxonomy.from_dict(weights.metadata.taxonomy)


def stream_count(config: PipelineConfig, threads: int) -> int:
    """
    Return how many frames are best labelled at a time on this machine; the config is settled.

    Networks that share the cores frame by frame leave them no time to wait for one another, which
    they do as soon as decoding and counting take a core away now and then. torch shares its
    threads among all networks anyway, and a GPU is one.
    """
    if config.backend == 'torch' or config.device != 'cpu':
        return 1
    cores = os.cpu_count() or 1
    return max(1, cores // threads) if threads else min(cores, _MOST_STREAMS)


def shared_out(configurations: Configurations, shares: int) -> Configurations:
    """Give each process or stream its share of the cores, unless a number was asked for."""
    share = max(1, (os.cpu_count() or 1) // shares)
    return {
        name: replace(config, threads=config.threads or share)
        for name, config in configurations.items()
    }


class Variants:
    """
    The configurations, loaded, in their order.

    Those that differ only in route and router share their networks, and where two of them take
    the same route for a frame, it is labelled once: a network gives one answer to one frame.
    Further streams are the same networks loaded again, for frames to be labelled side by side.
    """

    def __init__(
        self,
        configurations: Configurations,
        *,
        streams: int = 1,
        log: Log = lambda text: None,
    ) -> None:
        """Load every network once a stream; ``ConfigError`` where the taxonomies differ."""
        self.configurations = configurations
        if streams > 1:
            configurations = shared_out(configurations, streams)
        self.streams = streams
        """How many frames can be labelled at a time."""
        every = configurations.values()
        self._loaded = [_load(every, log)]
        self._loaded += [_load(every, lambda text: None) for _ in range(1, streams)]
        self.pipelines = self._loaded[0]
        self.taxonomy: Taxonomy = self.pipelines[0].taxonomy
        for pipeline in self.pipelines:
            if pipeline.taxonomy != self.taxonomy:
                raise ConfigError(
                    f"configurations label '{self.taxonomy.name}' and "
                    f"'{pipeline.taxonomy.name}'; only one taxonomy can be scored at a time"
                )
        #: Camera sizes that the networks are ready for.
        self._ready: set[tuple[int, int]] = set()
        self._free: queue.SimpleQueue[list[Pipeline]] = queue.SimpleQueue()
        for stream in self._loaded:
            self._free.put(stream)

    def run_names(self, set_name: str) -> list[str]:
        """Return the names that a set's scores get, one a configuration."""
        return [f'{set_name}/{name}' if name else set_name for name in self.configurations]

    def fresh(self) -> Variants:
        """Return the same networks with routers that have seen nothing."""
        fresh = copy.copy(self)
        fresh.pipelines = [_sharing(pipeline, pipeline.config) for pipeline in self.pipelines]
        return fresh

    def describe(self) -> list[dict[str, Any]]:
        """Return what runs in each configuration, of its own routes only."""
        result = []
        parts = {'day': {'day'}, 'night': {'night'}, 'translate': {'translator', 'day'}}
        for pipeline in self.pipelines:
            described = pipeline.describe()
            routes = routes_of(pipeline.config.route, pipeline.config.router)
            used = {'illumination'}.union(*(parts[route] for route in routes))
            weights = {k: v for k, v in described['weights'].items() if k in used}
            result.append({**described, 'weights': weights})
        return result

    def warm_up(self, size: tuple[int, int], wait: Callable[[], None]) -> None:
        """Run every network at a new size (height, width); ``wait`` empties them before."""
        if size in self._ready or len(self._ready) >= _SIZES:
            return
        wait()
        self._ready.add(size)
        for stream in self._loaded:
            # those that share their networks share what is made ready
            for pipeline in {id(each.parts): each for each in stream}.values():
                pipeline.warm_up([size])

    def decide(self, frame: Frame, *, alone: bool) -> list[Result]:
        """Let every router decide on the next frame; ``alone``: as if none had come before."""
        if alone:
            for pipeline in self.pipelines:
                pipeline.reset(reason='a picture by itself')
        return [pipeline.process([frame], NOTHING)[0] for pipeline in self.pipelines]

    def label(self, decided: Sequence[Result]) -> list[tuple[Result, str]]:
        """Label a frame in a free stream; the text says why the mask was withheld, '' if not."""
        stream = self._free.get()
        try:
            masks: dict[tuple[PipelineConfig, str], tuple[Result, str]] = {}
            results = []
            for own, pipeline in zip(decided, stream):
                key = (_networks(pipeline.config), own.decision.route)
                if key not in masks:
                    try:
                        masks[key] = pipeline.segment(own, _WANT), ''
                    except WithheldError as error:
                        masks[key] = own, str(error)
                found, why = masks[key]
                # the pictures of one result with the decision of another
                shared = replace(
                    found, illumination=own.illumination, decision=own.decision,
                    ms={**found.ms, **own.ms},
                )  # fmt: skip
                results.append((shared, why))
            return results
        finally:
            self._free.put(stream)


def _load(configurations: Iterable[PipelineConfig], log: Log) -> list[Pipeline]:
    """Load the networks of every group of configurations once, for all routes that it takes."""
    routes: dict[PipelineConfig, set[str]] = {}
    for config in configurations:
        taken = routes.setdefault(_networks(config), set())
        taken |= routes_of(config.route, config.router)
    loaded = {}
    for networks, taken in routes.items():
        # a table of four states that picks each of up to three routes
        names: list[Any] = sorted(taken)
        table = RouteTable(
            day=names[0], dusk=names[-1], night=names[-1], glare=names[len(names) // 2]
        )
        every = replace(networks, router=RouterConfig(table=table))
        loaded[networks] = Pipeline.load(every, log=log)
    return [_sharing(loaded[_networks(config)], config) for config in configurations]


def _sharing(loaded: Pipeline, config: PipelineConfig) -> Pipeline:
    return Pipeline(config, loaded.backend, loaded.parts, loaded.estimator)


def _networks(config: PipelineConfig) -> PipelineConfig:
    """Return what has to be equal for two configurations to share their networks' answers."""
    return replace(config, route='auto', router=RouterConfig())
