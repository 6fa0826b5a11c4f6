# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Settings of a pipeline: weights, routes, backend, sizes.

A segmenter ready to run: weights on a backend, and what its labels mean.

A night→day translator ready to run.

The networks that a pipeline's routes need, read once and put on a backend.

Camera frame → illumination → route → network → mask: the whole way, in one object.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnail
from nightseg_ros.perception.rendering import Renderer
from nightseg_ros.perception.result import LABELS_ONLY, Image, Result, Want
from nightseg_ros.perception.router import Route as FixedRoute
from nightseg_ros.perception.router import RouterBank, RouterConfig
from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.runtime.backends import Choice, choose, open_backend
from nightseg_ros.runtime.pixels import NetworkSize, fit
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError, has_trust, load_weights

Route = Literal['auto', 'day', 'night', 'translate']


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig:
    """Which weights serve which route: a path, the name of a shipped file, or '' for none."""

    day: str = 'day'
    night: str = 'night'
    translator: str = ''
    illumination: str = 'illumination'


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """Everything that decides which label a pixel gets."""

    route: Route = 'auto'
    """'auto' follows the illumination; the others are always taken."""
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    backend: str = 'auto'
    device: str = 'auto'
    threads: int = 0
    """CPU threads of the backend; 0 leaves the number to it."""
    long_side: int = 0
    """Long side of the network's input in pixels; 0 takes what the weights were trained at."""
    overlay_alpha: float = 0.5
    """How much of the colours the overlay shows, 0 to 1."""
    overlay_route: bool = True
    """Write state and route into the upper left corner of the overlay."""

    def __post_init__(self) -> None:
        """Refuse values out of range, naming them."""
        if self.route not in ('auto', 'day', 'night', 'translate'):
            raise ValueError(f"route is auto, day, night or translate, got '{self.route}'")
        if self.long_side and not 64 <= self.long_side <= 4096:
            raise ValueError(f'long_side is 0 or 64 to 4096 pixels, got {self.long_side}')
        if not 0 <= self.overlay_alpha <= 1:
            raise ValueError(f'overlay_alpha is 0 to 1, got {self.overlay_alpha}')
        if self.threads < 0:
            raise ValueError(f'threads must not be negative, got {self.threads}')


class Segmenter:
    """uint8 [B, h, w, 3] RGB on the backend's device → labels, confidence, reliability."""

    def __init__(self, weights: Weights, backend: Backend, say: Say) -> None:
        """Load the weights; ``WeightsError`` where they are no segmenter's."""
        metadata = weights.metadata
        if metadata.task != 'segment' or metadata.taxonomy is None:
            raise WeightsError(
                f"weights '{weights.path}' are for '{metadata.task}' and cannot label pixels; "
                'a segmenter with its taxonomy is wanted'
            )
        self.weights = weights.described()
        #: Whether the weights have learnt to judge whole frames; see ``nightseg calibrate``.
        self.judges = has_trust(weights)
        self.taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        self._run = backend.load(weights, say)

    def __call__(self, images: Any) -> tuple[Any, Any, Any]:
        """
        Return ids, confidence (255 = certain), both uint8 [B, h / 2, w / 2], and reliability.

        The reliability is float [B], 0 to 1: see ``runtime.graph.SegmentGraph``.
        """
        labels, confidence, reliability = self._run(images)
        return labels, confidence, reliability

    def describe(self) -> dict[str, str]:
        """Return how confidence and reliability of these weights came about."""
        temperature = self.weights.metadata.temperature
        return {
            'temperature': f'{temperature:.3f}' if temperature != 1 else 'not calibrated',
            'reliability': 'fitted' if self.judges else 'mean confidence',
        }


class Translator:
    """uint8 [B, h, w, 3] RGB at night → the same scene by day (the paper's method 1)."""

    def __init__(self, weights: Weights, backend: Backend, say: Say) -> None:
        """Load the weights; ``WeightsError`` where they are no translator's."""
        if weights.metadata.task != 'translate':
            raise WeightsError(
                f"weights '{weights.path}' are for '{weights.metadata.task}'; "
                'a translator is wanted'
            )
        self.weights = weights.described()
        self._run = backend.load(weights, say)

    def __call__(self, images: Any) -> Any:
        """Return uint8 [B, h, w, 3] on the same device."""
        return self._run(images)[0]


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


class WithheldError(RuntimeError):
    """A mask that must not be published: it does not fit its frame, or holds no numbers."""


class Pipeline:
    """
    Frames in, masks out; the node, the command line and the evaluation call this one object.

    It keeps one router a camera, so that frames of a camera have to come in the order of their
    stamps. It is not safe to call from two threads at once.
    """

    def __init__(
        self,
        config: PipelineConfig,
        backend: Backend,
        *,
        day: Segmenter | None,
        night: Segmenter | None,
        translator: Translator | None,
        estimator: IlluminationEstimator,
    ) -> None:
        """Put loaded parts together; ``WeightsError`` names the part that a route lacks."""
        self.config = config
        self.backend = backend
        self.day, self.night, self.translator = day, night, translator
        self.estimator = estimator
        self._routers = RouterBank(config.router, _forced(config.route))
        self._sizes: dict[tuple[int, int], NetworkSize] = {}
        segmenters = [segmenter for segmenter in (day, night) if segmenter is not None]
        self.check(config.route, config.router)
        self.taxonomy: Taxonomy = segmenters[0].taxonomy
        for segmenter in segmenters[1:]:
            if segmenter.taxonomy != self.taxonomy:
                raise WeightsError(
                    f"weights '{segmenters[0].weights.path.name}' label '{self.taxonomy.name}', "
                    f"'{segmenter.weights.path.name}' '{segmenter.taxonomy.name}'; "
                    'all routes must label one taxonomy'
                )
        self.long_side = config.long_side or segmenters[0].weights.metadata.long_side
        self.renderer = Renderer(self.taxonomy, backend.pixels)

    @classmethod
    def load(cls, config: PipelineConfig, *, say: Say = lambda text: None) -> Pipeline:
        """
        Load every network that the config's routes need, once.

        ``say`` hears what takes long, and each licence note. ``WeightsError`` names a file
        that is missing or unfit and the route that needs it, ``BackendError`` what cannot run.
        """
        loaded = load_networks(config, say)
        return cls(
            config, loaded.backend, day=loaded.day, night=loaded.night,
            translator=loaded.translator, estimator=loaded.estimator,
        )  # fmt: skip

    def check(self, route: str, router: RouterConfig) -> None:
        """Raise ``WeightsError`` where a route would need weights that are not loaded."""
        for needed in sorted(routes_of(route, router)):
            parts = {'day': ('day',), 'night': ('night',), 'translate': ('translator', 'day')}
            for name in parts[needed]:
                if getattr(self, name) is None:
                    raise WeightsError(
                        f"route '{needed}' needs weights that are not loaded: "
                        f'set weights.{name} and configure again'
                    )

    def change(
        self,
        *,
        route: Route | None = None,
        router: RouterConfig | None = None,
        overlay_alpha: float | None = None,
        overlay_route: bool | None = None,
    ) -> None:
        """
        Change what may change while running; nothing changes where one value is refused.

        ``WeightsError`` is raised for a route without weights, ``ValueError`` for values out of
        range. Routers keep their state unless thresholds or the table change.
        """
        config = replace(
            self.config,
            route=self.config.route if route is None else route,
            router=self.config.router if router is None else router,
            overlay_alpha=self.config.overlay_alpha if overlay_alpha is None else overlay_alpha,
            overlay_route=self.config.overlay_route if overlay_route is None else overlay_route,
        )
        self.check(config.route, config.router)
        if config.router != self.config.router:
            self._routers = RouterBank(config.router, _forced(config.route))
        self._routers.force(_forced(config.route))
        self.config = config

    def reset(self, camera: str | None = None, reason: str = 'reset') -> None:
        """Forget what the routers know, of one camera or of all."""
        self._routers.reset(camera, reason)

    def process(
        self, frames: Sequence[Frame], want: Want | Sequence[Want] = LABELS_ONLY
    ) -> list[Result]:
        """
        Label frames, batched by route and size; results come in the frames' order.

        Estimator and router run for every frame, the networks only for those of which ``want``
        asks for a picture. At most one frame of a camera belongs into one call.
        """
        wants = [want] * len(frames) if isinstance(want, Want) else list(want)
        if len(wants) != len(frames):
            raise ValueError(f'{len(frames)} frames came with {len(wants)} wants')
        if not frames:
            return []
        # a GPU works on these while the CPU looks at the light
        shrunk = [self._shrink(frame) if one else None for frame, one in zip(frames, wants)]
        started = time.perf_counter()
        seen = self.estimator.estimate(np.stack([thumbnail(f.image, f.order) for f in frames]))
        decisions = [
            self._routers.update(frame.camera, frame.stamp_ns, light)
            for frame, light in zip(frames, seen)
        ]
        estimate = _ms(started) / len(frames)

        results = [
            Result(frame=frame, illumination=light, decision=decision, ms={'estimate': estimate})
            for frame, light, decision in zip(frames, seen, decisions)
        ]
        batches: dict[tuple[str, tuple[int, int]], list[int]] = {}
        for index, frame in enumerate(frames):
            if wants[index]:
                key = (decisions[index].route, self._size(frame).padded)
                batches.setdefault(key, []).append(index)
        made: dict[int, _Pictures] = {}
        for (route, _), indices in batches.items():
            pictures = self._segment(
                route, [frames[i] for i in indices], [wants[i] for i in indices],
                [shrunk[i] for i in indices],
            )  # fmt: skip
            made.update(zip(indices, pictures))
        started = time.perf_counter()
        self.backend.pixels.wait()
        waited = _ms(started) / max(1, len(made))
        for index, one in made.items():
            results[index] = self._complete(results[index], one, waited)
        return results

    def segment(self, seen: Result, want: Want = LABELS_ONLY) -> Result:
        """
        Label a frame that ``process`` has decided on without being asked for pictures.

        It needs no router, so that it may run in another thread than the next frame's decision,
        but not beside another call that labels.
        """
        shrunk = [self._shrink(seen.frame)]
        [made] = self._segment(seen.decision.route, [seen.frame], [want], shrunk)
        started = time.perf_counter()
        self.backend.pixels.wait()
        return self._complete(seen, made, _ms(started))

    def warm_up(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Run the networks once at each camera size (height, width), so that no frame waits."""
        for height, width in sizes:
            blank = Frame(image=np.zeros((height, width, 3), np.uint8))
            for route in sorted(routes_of(self.config.route, self.config.router)):
                for count in self.backend.batches:
                    shrunk = [self._shrink(blank) for _ in range(count)]
                    self._segment(route, [blank] * count, [LABELS_ONLY] * count, shrunk)
                    self.backend.pixels.wait()

    def describe(self) -> dict[str, Any]:
        """Return what runs here: device, backend, and each network's weights with their hash."""
        loaded: dict[str, Weights] = {}
        for name in ('day', 'night', 'translator', 'estimator'):
            part = getattr(self, name)
            if part is not None and part.weights is not None:
                loaded['illumination' if name == 'estimator' else name] = part.weights
        return {
            'device': self.backend.device,
            'backend': self.backend.name,
            'taxonomy': self.taxonomy.name,
            'long_side': self.long_side,
            'weights': {
                name: {
                    'file': weights.path.name,
                    'sha256': weights.sha256,
                    'license': weights.metadata.license,
                    **(getattr(self, name).describe() if name in ('day', 'night') else {}),
                }
                for name, weights in loaded.items()
            },
        }

    @property
    def judged_routes(self) -> frozenset[str]:
        """Routes whose weights have learnt to judge whole frames; see ``nightseg calibrate``."""
        segmenters = {'day': self.day, 'translate': self.day, 'night': self.night}
        return frozenset(
            route
            for route, segmenter in segmenters.items()
            if segmenter is not None and segmenter.judges
        )

    def _complete(self, seen: Result, made: _Pictures, waited: float) -> Result:
        """Return a decision with its pictures, which are in host memory now."""
        self._verify(made.found['labels'], seen.frame)
        # what was enqueued ran during the wait
        ms = {**seen.ms, **made.ms, 'network': made.ms['network'] + waited}
        if self.config.overlay_route and 'overlay' in made.found:
            started = time.perf_counter()
            self.renderer.mark(made.found['overlay'], seen.decision)
            ms['render'] += _ms(started)
        reliability = float(made.reliability[0])
        pictures: dict[str, Any] = dict(made.found)
        return replace(seen, ms=ms, reliability=reliability, **pictures)

    def _size(self, frame: Frame) -> NetworkSize:
        shape = (frame.image.shape[0], frame.image.shape[1])
        if shape not in self._sizes:
            # a camera that changes its size with every frame must not fill the memory
            if len(self._sizes) > 64:
                self._sizes.clear()
            self._sizes[shape] = fit(*shape, self.long_side)
        return self._sizes[shape]

    def _shrink(self, frame: Frame) -> tuple[Any, float]:
        """Return a frame at its network's size, on the backend's device, and milliseconds."""
        started = time.perf_counter()
        image = self.backend.pixels.shrink(frame.image, frame.order, self._size(frame))
        return image, _ms(started)

    def _segment(
        self,
        route: str,
        frames: list[Frame],
        wants: list[Want],
        shrunk: Sequence[tuple[Any, float] | None],
    ) -> list[_Pictures]:
        """Run one batch without waiting for the device; return each frame's pictures."""
        pixels = self.backend.pixels
        given = [one for one in shrunk if one is not None]
        images = pixels.stack([image for image, _ in given])
        started = time.perf_counter()
        translated = None
        if route == 'translate':
            assert self.translator is not None
            images = translated = self.translator(images)
        segmenter = self.night if route == 'night' else self.day
        assert segmenter is not None
        labels, confidence, reliability = segmenter(images)
        trust = pixels.begin_download(reliability)
        network = _ms(started)
        results = []
        for index, (frame, want) in enumerate(zip(frames, wants)):
            size = self._size(frame)
            started = time.perf_counter()
            found: dict[str, Any] = {'labels': pixels.enlarge(labels[index], size)}
            if want.confidence:
                found['confidence'] = pixels.enlarge(confidence[index], size)
            post = _ms(started)
            started = time.perf_counter()
            if want.color or want.overlay:
                # few pixels are coloured, then enlarged as the labels are
                color = pixels.enlarge(self.renderer.color(labels[index]), size)
                if want.color:
                    found['color'] = color
                if want.overlay:
                    found['overlay'] = self.renderer.overlay(
                        frame, color, self.config.overlay_alpha
                    )
            if want.translated and translated is not None:
                found['translated'] = pixels.restore(translated[index], size)
            host = {name: pixels.begin_download(array) for name, array in found.items()}
            ms = {
                'shrink': given[index][1], 'network': network / len(frames), 'post': post,
                'render': _ms(started),
            }  # fmt: skip
            results.append(_Pictures(found=host, reliability=trust[index : index + 1], ms=ms))
        return results

    def _verify(self, labels: Image, frame: Frame) -> None:
        """Withhold a mask that does not fit its frame, or where the network gave no numbers."""
        if labels.shape != frame.image.shape[:2]:
            raise WithheldError(
                f'the mask is {labels.shape}, the frame {frame.image.shape[:2]}: it is withheld'
            )
        if labels.max() >= len(self.taxonomy):
            raise WithheldError('the network gave no numbers (NaN): the mask is withheld')


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pictures:
    """What was made of a frame; the arrays are filled once the device is done."""

    found: dict[str, Image]
    reliability: npt.NDArray[Any]
    """One number, float32."""
    ms: dict[str, float]


def _forced(route: Route) -> FixedRoute | None:
    return None if route == 'auto' else route


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
