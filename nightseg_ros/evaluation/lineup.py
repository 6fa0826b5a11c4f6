# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Several configurations of the pipeline over the same frames, sharing what they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import (
    Pipeline,
    PipelineConfig,
    Result,
    Want,
    WithheldError,
)
from nightseg_ros.perception.router import Route, RouterConfig, RouteTable
from nightseg_ros.runtime.backend import Say
from nightseg_ros.taxonomy import Taxonomy

#: Estimator and router run, no network does.
NOTHING = Want(labels=False)
_SIZES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to run the pipeline, under the name that its scores get."""

    name: str
    """'' where there is only one."""
    config: PipelineConfig


def configurations(base: PipelineConfig, compare: Sequence[str]) -> tuple[Configuration, ...]:
    """
    Return ``base`` changed by each of ``KEY=VALUE[,KEY=VALUE]``, or ``base`` alone for none.

    Keys are the node's: route, long_side, weights.night, router.dwell_dark_s, router.table.dusk,
    … ``ConfigError`` names an unknown key, a wrong value, and a configuration given twice.
    """
    if not compare:
        return (Configuration(name='', config=base),)
    twice = {name for name in compare if compare.count(name) > 1}
    if twice:
        raise ConfigError(f"configuration '{min(twice)}' is given twice")
    return tuple(Configuration(name=name, config=_changed(base, name)) for name in compare)


def _changed(base: PipelineConfig, changes: str) -> PipelineConfig:
    values = to_mapping(base)
    for change in changes.split(','):
        key, equals, value = change.partition('=')
        if not equals:
            raise ConfigError(f"'{change}' is no KEY=VALUE, such as route=night")
        *parents, last = key.strip().split('.')
        inside = values
        for parent in parents:
            inside = inside.get(parent, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"unknown key '{key}' in '{changes}'")
        if last not in inside:
            raise ConfigError(
                f"unknown key '{key}' in '{changes}'; known keys: {', '.join(inside)}"
            )
        # a name stays a name, even where YAML would read yes or 1e3
        inside[last] = value if isinstance(inside[last], str) else yaml.safe_load(value)
    return from_mapping(PipelineConfig, values)


class Lineup:
    """
    The configurations, loaded, in their order.

    Those that differ only in route and router share their networks, and where one of them has
    already labelled a frame by the route that another one takes, its mask is taken: a network
    gives one answer to one frame.
    """

    def __init__(
        self, pipelines: Sequence[Pipeline], ready: set[tuple[int, int]] | None = None
    ) -> None:
        """
        Take the pipelines, and the sizes that their networks are ready for.

        ``ConfigError`` where they label different taxonomies.
        """
        self._ready = set() if ready is None else ready
        self.pipelines = tuple(pipelines)
        self.taxonomy: Taxonomy = pipelines[0].taxonomy
        for pipeline in pipelines:
            if pipeline.taxonomy != self.taxonomy:
                raise ConfigError(
                    f"configurations label '{self.taxonomy.name}' and "
                    f"'{pipeline.taxonomy.name}'; only one taxonomy can be scored at a time"
                )
        keys = [_networks(pipeline.config) for pipeline in pipelines]
        self._groups = [keys.index(key) for key in keys]
        # forced routes first: an automatic one can then take their masks
        self._order = sorted(
            range(len(pipelines)), key=lambda index: pipelines[index].config.route == 'auto'
        )

    @classmethod
    def load(
        cls, configurations: Sequence[Configuration], *, say: Say = lambda text: None
    ) -> Lineup:
        """Load every network once; raises as ``Pipeline.load`` does."""
        loaded: dict[PipelineConfig, Pipeline] = {}
        pipelines = []
        for item in configurations:
            key = _networks(item.config)
            if key not in loaded:
                routes = {
                    route
                    for other in configurations
                    if _networks(other.config) == key
                    for route in _routes(other.config)
                }
                loaded[key] = Pipeline.load(_taking(key, sorted(routes)), say=say)
            pipelines.append(_sharing(loaded[key], item.config))
        return cls(pipelines)

    def fresh(self) -> Lineup:
        """Return the same networks with routers that have seen nothing."""
        pipelines = [_sharing(pipeline, pipeline.config) for pipeline in self.pipelines]
        return Lineup(pipelines, self._ready)

    def describe(self) -> list[dict[str, Any]]:
        """Return what runs in each configuration, of its own routes only."""
        result = []
        for pipeline in self.pipelines:
            described = pipeline.describe()
            parts = {'day': {'day'}, 'night': {'night'}, 'translate': {'translator', 'day'}}
            used = set().union(*(parts[route] for route in _routes(pipeline.config)))
            weights = {k: v for k, v in described['weights'].items() if k in used}
            result.append({**described, 'weights': weights})
        return result

    def warm_up(self, height: int, width: int) -> None:
        """
        Run every network once at this camera size, so that no timed frame waits for it.

        Only the first few sizes are made ready: pictures may all differ.
        """
        if (height, width) in self._ready or len(self._ready) >= _SIZES:
            return
        self._ready.add((height, width))
        for pipeline in self.pipelines:
            pipeline.warm_up([(height, width)])

    def reset(self, reason: str) -> None:
        """Make every router decide afresh."""
        for pipeline in self.pipelines:
            pipeline.reset(reason=reason)

    def follow(self, frame: Frame) -> list[Result]:
        """Take a frame's light into the routers without labelling it."""
        return [pipeline.process([frame], NOTHING)[0] for pipeline in self.pipelines]

    def process(self, frame: Frame, want: Want) -> list[tuple[Result, str]]:
        """
        Label one frame in every configuration.

        The text is '' or says why the pipeline withheld the mask; its pictures are then None.
        """
        results: dict[int, tuple[Result, str]] = {}
        masks: dict[tuple[int, str], tuple[Result, str]] = {}
        for index in self._order:
            pipeline, group = self.pipelines[index], self._groups[index]
            seen: Result | None = None
            if any(key[0] == group for key in masks):
                [seen] = pipeline.process([frame], NOTHING)
            if seen is None or (group, seen.decision.route) not in masks:
                made = _labelled(pipeline, frame, want)
                masks[group, made[0].decision.route] = made
            else:
                made = masks[group, seen.decision.route]
            results[index] = made if seen is None else (_as(made[0], seen), made[1])
        return [results[index] for index in range(len(self.pipelines))]


def _sharing(loaded: Pipeline, config: PipelineConfig) -> Pipeline:
    return Pipeline(
        config, loaded.backend, day=loaded.day, night=loaded.night,
        translator=loaded.translator, estimator=loaded.estimator,
    )  # fmt: skip


def _labelled(pipeline: Pipeline, frame: Frame, want: Want) -> tuple[Result, str]:
    try:
        return pipeline.process([frame], want)[0], ''
    except WithheldError as error:
        # the routers have seen this stamp, so that this changes nothing in them
        return pipeline.process([frame], NOTHING)[0], str(error)


def _as(found: Result, seen: Result) -> Result:
    """Return the pictures of one result with the decision of another."""
    return replace(
        found, illumination=seen.illumination, decision=seen.decision, ms={**found.ms, **seen.ms}
    )


def _networks(config: PipelineConfig) -> PipelineConfig:
    """Return what has to be equal for two configurations to share their networks' answers."""
    return replace(config, route='auto', router=RouterConfig())


def _routes(config: PipelineConfig) -> tuple[Route, ...]:
    return config.router.table.routes() if config.route == 'auto' else (config.route,)


def _taking(config: PipelineConfig, routes: Sequence[Route]) -> PipelineConfig:
    """Return a configuration whose table picks each of up to three routes."""
    names = ('day', 'dusk', 'night', 'glare')
    table = {name: routes[min(index, len(routes) - 1)] for index, name in enumerate(names)}
    return replace(config, router=replace(config.router, table=RouteTable(**table)))
