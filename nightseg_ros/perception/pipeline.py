# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Camera frame → illumination → route → network → mask: the whole way, in one object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnails
from nightseg_ros.perception.rendering import mark
from nightseg_ros.perception.result import LABELS_ONLY, NOTHING, Result, Want
from nightseg_ros.perception.router import Route as FixedRoute
from nightseg_ros.perception.router import RouterBank, RouterConfig
from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.runtime.backends import BackendChoice, choose, open_backend
from nightseg_ros.runtime.pixels import NetworkSize, fit
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError, has_reliability, load_weights

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
        self.judges = has_reliability(weights)
        self.taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        self.network = backend.load(weights, say)

    def __call__(self, images: Any) -> tuple[Any, Any, Any]:
        """
        Return ids, confidence (255 = certain), both uint8 [B, h / 2, w / 2], and reliability.

        The reliability is float [B], 0 to 1: see ``runtime.graph.SegmentGraph``.
        """
        labels, confidence, reliability = self.network(images)
        return labels, confidence, reliability


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
        self.network = backend.load(weights, say)

    def __call__(self, images: Any) -> Any:
        """Return uint8 [B, h, w, 3] on the same device."""
        return self.network(images)[0]


class WithheldError(RuntimeError):
    """A mask that must not be published: it does not fit its frame, or holds no numbers."""


@dataclass(kw_only=True, slots=True)
class _FrameJob:
    """A frame between ``shrink`` and the end of its batch; arrays may still be on the device."""

    frame: Frame
    want: Want
    size: NetworkSize
    image: Any
    ms: dict[str, float]
    found: dict[str, Any] = field(default_factory=dict)
    """The pictures in host memory, filled once the device is done."""
    reliability: Any = None
    """float32 [1], the same."""


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
        self.check(config.route, config.router)
        first, *others = [segmenter for segmenter in (day, night) if segmenter is not None]
        self.taxonomy: Taxonomy = first.taxonomy
        for other in others:
            if other.taxonomy != self.taxonomy:
                raise WeightsError(
                    f"weights '{first.weights.path.name}' label '{self.taxonomy.name}', "
                    f"'{other.weights.path.name}' '{other.taxonomy.name}'; "
                    'all routes must label one taxonomy'
                )
        self.long_side = config.long_side or first.weights.metadata.long_side
        self._palette = self.taxonomy.palette()
        self._classes = len(self.taxonomy)

    @classmethod
    def load(cls, config: PipelineConfig, *, say: Say = lambda text: None) -> Pipeline:
        """
        Load every network that the config's routes need, once.

        ``say`` hears what takes long, and each licence note. ``WeightsError`` names a file
        that is missing or unfit and the route that needs it, ``BackendError`` what cannot run.
        """
        read = _read_segmenters(config, say)
        translating = 'translate' in routes_of(config.route, config.router)
        to_day = _read('translate', config.weights.translator, say) if translating else None
        light = _read('auto', config.weights.illumination, say)
        estimator = IlluminationEstimator.load(light.path)
        choice = _choose(config, list(read.values()), say)
        backend = open_backend(choice.backend, choice.device, config.threads)
        day = Segmenter(read['day'], backend, say) if 'day' in read else None
        night = None
        if 'night' in read:
            shared = read['night'] is read.get('day')
            night = day if shared else Segmenter(read['night'], backend, say)
        translator = Translator(to_day, backend, say) if to_day else None
        return cls(
            config, backend, day=day, night=night, translator=translator, estimator=estimator
        )

    def check(self, route: str, router: RouterConfig) -> None:
        """Raise ``WeightsError`` where a route would need weights that are not loaded."""
        parts = {'day': ('day',), 'night': ('night',), 'translate': ('translator', 'day')}
        for needed in sorted(routes_of(route, router)):
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
        given: dict[str, Any] = {
            'route': route, 'router': router, 'overlay_alpha': overlay_alpha,
            'overlay_route': overlay_route,
        }  # fmt: skip
        given = {key: value for key, value in given.items() if value is not None}
        config = replace(self.config, **given)
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
        jobs = [
            self._shrink(frame, one) if one != NOTHING else None
            for frame, one in zip(frames, wants)
        ]
        started = time.perf_counter()
        results = []
        for frame, light in zip(frames, self.estimator.estimate(thumbnails(frames))):
            decision = self._routers.update(frame.camera, frame.stamp_ns, light)
            results.append(Result(frame=frame, illumination=light, decision=decision))
        estimate = (time.perf_counter() - started) * 1e3 / len(frames)
        for result in results:
            result.ms['estimate'] = estimate
        return self._label(results, jobs)

    def segment(self, seen: Result, want: Want = LABELS_ONLY) -> Result:
        """
        Label a frame that ``process`` has decided on without being asked for pictures.

        It needs no router, so that it may run in another thread than the next frame's decision,
        but not beside another call that labels.
        """
        return self._label([seen], [self._shrink(seen.frame, want)])[0]

    def warm_up(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Run the networks once at each camera size (height, width), so that no frame waits."""
        for height, width in sizes:
            blank = Frame(image=np.zeros((height, width, 3), np.uint8))
            for route in sorted(routes_of(self.config.route, self.config.router)):
                for count in self.backend.batches:
                    self._enqueue(route, [self._shrink(blank, LABELS_ONLY) for _ in range(count)])
                    self.backend.pixels.wait()

    def describe(self) -> dict[str, Any]:
        """Return what runs here: device, backend, and each network's weights with their hash."""
        weights: dict[str, dict[str, str]] = {}
        for name in ('day', 'night', 'translator', 'illumination'):
            part = self.estimator if name == 'illumination' else getattr(self, name)
            if part is None or part.weights is None:
                continue
            metadata = part.weights.metadata
            weights[name] = {
                'file': part.weights.path.name, 'sha256': part.weights.sha256,
                'license': metadata.license,
            }  # fmt: skip
            if isinstance(part, Segmenter):
                fitted = metadata.temperature != 1
                weights[name] |= {
                    'temperature': f'{metadata.temperature:.3f}' if fitted else 'not calibrated',
                    'reliability': 'fitted' if part.judges else 'mean confidence',
                }
        return {
            'device': self.backend.device,
            'backend': self.backend.name,
            'taxonomy': self.taxonomy.name,
            'long_side': self.long_side,
            'weights': weights,
        }

    @property
    def judged_routes(self) -> frozenset[str]:
        """Routes whose weights have learnt to judge whole frames; see ``nightseg calibrate``."""
        segmenters = {'day': self.day, 'translate': self.day, 'night': self.night}
        return frozenset(route for route, one in segmenters.items() if one and one.judges)

    def _shrink(self, frame: Frame, want: Want) -> _FrameJob:
        """Bring a frame to its network's size, on the backend's device."""
        started = time.perf_counter()
        size = fit(*frame.image.shape[:2], self.long_side)
        image = self.backend.pixels.shrink(frame.image, frame.order, size)
        ms = {'shrink': (time.perf_counter() - started) * 1e3}
        return _FrameJob(frame=frame, want=want, size=size, image=image, ms=ms)

    def _label(self, results: list[Result], jobs: Sequence[_FrameJob | None]) -> list[Result]:
        """Add the pictures of the jobs to their results; the device is waited for once."""
        batches: dict[tuple[str, tuple[int, int]], list[_FrameJob]] = {}
        for result, job in zip(results, jobs):
            if job is not None:
                batches.setdefault((result.decision.route, job.size.padded), []).append(job)
        for (route, _), batch in batches.items():
            self._enqueue(route, batch)
        started = time.perf_counter()
        self.backend.pixels.wait()
        # what was enqueued ran during the wait
        waited = (time.perf_counter() - started) * 1e3 / max(1, sum(map(len, batches.values())))
        for index, job in enumerate(jobs):
            if job is None:
                continue
            labels, shape = job.found['labels'], job.frame.image.shape[:2]
            if labels.shape != shape:
                raise WithheldError(
                    f'the mask is {labels.shape}, the frame {shape}: it is withheld'
                )
            if labels.max() >= self._classes:
                raise WithheldError('the network gave no numbers (NaN): the mask is withheld')
            job.ms['network'] += waited
            if self.config.overlay_route and 'overlay' in job.found:
                started = time.perf_counter()
                mark(job.found['overlay'], results[index].decision)
                job.ms['render'] += (time.perf_counter() - started) * 1e3
            results[index] = replace(
                results[index], ms={**results[index].ms, **job.ms},
                reliability=float(job.reliability[0]), **job.found,
            )  # fmt: skip
        return results

    def _enqueue(self, route: str, batch: Sequence[_FrameJob]) -> None:
        """Run one batch without waiting for the device."""
        pixels = self.backend.pixels
        images = pixels.stack([job.image for job in batch])
        started = time.perf_counter()
        translated = None
        if route == 'translate':
            assert self.translator is not None
            [translated] = self.translator.network(images)
            images = translated
        segmenter = self.night if route == 'night' else self.day
        assert segmenter is not None
        labels, confidence, reliability = segmenter.network(images)
        reliability = pixels.begin_download(reliability)
        network = (time.perf_counter() - started) * 1e3 / len(batch)
        for index, job in enumerate(batch):
            want, found = job.want, {}
            started = time.perf_counter()
            found['labels'] = pixels.enlarge(labels[index], job.size)
            if want.confidence:
                found['confidence'] = pixels.enlarge(confidence[index], job.size)
            enlarged = time.perf_counter()
            if want.color or want.overlay:
                # few pixels are coloured, then enlarged as the labels are
                color = pixels.enlarge(pixels.colorize(labels[index], self._palette), job.size)
                if want.color:
                    found['color'] = color
                if want.overlay:
                    found['overlay'] = pixels.blend(
                        job.frame.image, job.frame.order, color, self.config.overlay_alpha
                    )
            if want.translated and translated is not None:
                found['translated'] = pixels.restore(translated[index], job.size)
            for name, array in found.items():
                job.found[name] = pixels.begin_download(array)
            job.reliability = reliability[index : index + 1]
            job.ms['network'] = network
            job.ms['post'] = (enlarged - started) * 1e3
            job.ms['render'] = (time.perf_counter() - enlarged) * 1e3


def settled(config: PipelineConfig, say: Say = lambda text: None) -> PipelineConfig:
    """
    Return the config with the backend that 'auto' means on this machine.

    Several pipelines that have to give the same labels, such as those that share the cores, must
    not choose one by one. Raises as ``Pipeline.load`` does.
    """
    read = _read_segmenters(config, lambda text: None)
    choice = _choose(config, list(read.values()), say)
    return replace(config, backend=choice.backend, device=choice.device)


def routes_of(route: str, router: RouterConfig) -> set[str]:
    """Return the routes that can be taken, by the router's table where ``route`` is 'auto'."""
    return set(router.table.routes()) if route == 'auto' else {route}


def _read_segmenters(config: PipelineConfig, say: Say) -> dict[str, Weights]:
    """Read the weights by day and by night that the routes need; the same ones once."""
    names, routes = config.weights, routes_of(config.route, config.router)
    read: dict[str, Weights] = {}
    if routes & {'day', 'translate'}:
        read['day'] = _read('day', names.day, say)
    if 'night' in routes:
        same = 'day' in read and names.night == names.day
        read['night'] = read['day'] if same else _read('night', names.night, say)
    return read


def _read(route: str, name: str, say: Say) -> Weights:
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


def _choose(config: PipelineConfig, segmenters: Sequence[Weights], say: Say) -> BackendChoice:
    size = fit(720, 1280, config.long_side or segmenters[0].metadata.long_side)
    return choose(
        segmenters, size.padded, backend=config.backend, device=config.device,
        threads=config.threads, say=say,
    )  # fmt: skip


def _forced(route: Route) -> FixedRoute | None:
    return None if route == 'auto' else route
