# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Camera frame → illumination → route → network → mask: the whole way, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import time
from typing import Any, Literal

from nightseg_ros.config import check_rules, Limited, live, setting
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnail
from nightseg_ros.perception.result import LABELS_ONLY, NOTHING, Result, Want
from nightseg_ros.perception.router import RouterBank, RouterConfig, ROUTES
from nightseg_ros.runtime.backend import Backend, BACKENDS, Log, Network, out_of_memory
from nightseg_ros.runtime.backends import choose, open_backend
from nightseg_ros.runtime.pixels import fit, mark, NetworkSize
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import has_reliability, load_weights, Weights, WeightsError
import numpy as np

Route = Literal['auto', 'day', 'night', 'translate']


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig:
    """Which weights serve which route: a path, the name of a shipped file, or '' for none."""

    # fmt: off
    day: str = setting('day', "segmenter of the routes day and translate: name or path; '' none")
    night: str = setting('night', "segmenter of the route night: name or path; '' none")
    translator: str = setting(
        'translator', "night-to-day generator of the route translate; '' none")
    illumination: str = setting('illumination', 'estimator of the light: name or path')
    # fmt: on


#: The weights that each route needs.
PARTS = {
    'day': ('day',), 'night': ('night',), 'translate': ('translator', 'day'),
    'auto': ('illumination',),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig(Limited):
    """Everything that decides which label a pixel gets."""

    # fmt: off
    route: Route = live(
        'auto', 'by illumination, or always one whose networks configure loaded',
        choices=('auto', *ROUTES))
    overlay_alpha: float = live(0.5, 'share of the colours in the overlay', bounds=(0, 1))
    overlay_route: bool = live(True, 'write state and route into a corner of the overlay')
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    backend: str = setting('auto', 'what runs the networks', choices=('auto', *BACKENDS))
    device: str = setting('auto', 'where they run', choices=('auto', 'cpu', 'cuda'))
    threads: int = setting(
        0, 'CPU threads of the backend; 0 leaves it the choice', bounds=(0, 256))
    long_side: int = setting(
        0, 'long side of the network input in pixels, from 64; 0 takes that of the weights',
        bounds=(0, 4096))
    router: RouterConfig = field(default_factory=RouterConfig)
    # fmt: on

    def __post_init__(self) -> None:
        """Refuse values out of range, naming them."""
        sizes = self.long_side == 0 or 64 <= self.long_side <= 4096
        check_rules(self, ('long_side', sizes, 'be 0 or 64 to 4096 pixels'))
        Limited.__post_init__(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A network that runs, and its weights without their tensors."""

    weights: Weights
    run: Network
    has_reliability: bool
    """Whether the weights have learnt to judge whole frames; see ``nightseg calibrate``."""

    @property
    def taxonomy(self) -> Taxonomy:
        """Return what a segmenter's ids mean."""
        return Taxonomy.from_dict(self.weights.metadata.taxonomy or {})


def load_part(weights: Weights, backend: Backend, log: Log, task: str) -> Part:
    """Load weights for 'segment' or 'translate'; ``WeightsError`` where they are for another."""
    metadata = weights.metadata
    if metadata.task != task or (task == 'segment' and metadata.taxonomy is None):
        wanted = 'a translator' if task == 'translate' else 'a segmenter with its taxonomy'
        raise WeightsError(
            f"weights '{weights.path}' are for '{metadata.task}'; {wanted} is wanted"
        )
    return Part(
        weights=weights.described(), run=backend.load(weights, log),
        has_reliability=has_reliability(weights),
    )  # fmt: skip


class WithheldError(RuntimeError):
    """A mask that must not be published, because the network gave no numbers."""


@dataclass(kw_only=True, slots=True)
class _Job:
    """A frame on its way through the network; arrays may still be on the device."""

    frame: Frame
    want: Want
    size: NetworkSize
    image: Any
    ms: dict[str, float]
    pictures: dict[str, Any] = field(default_factory=dict)
    """In host memory, filled once the device is done; so is the reliability, float32 [1]."""
    reliability: Any = None


class Pipeline:
    """
    Frames in, masks out; the node, the command line and the evaluation call this one object.

    It keeps one router a camera, so that frames of a camera have to come in the order of their
    stamps. It is not safe to call from two threads at once.
    """

    def __init__(
        self, config: PipelineConfig, backend: Backend, parts: Mapping[str, Part],
        estimator: IlluminationEstimator,
    ) -> None:  # fmt: skip
        """
        Put loaded parts together: 'day' and 'night' segment, 'translator' translates.

        ``WeightsError`` names the part that a route lacks.
        """
        self.config, self.backend = config, backend
        self.parts, self.estimator = parts, estimator
        self.routers = RouterBank(config.router, None if config.route == 'auto' else config.route)
        self.check(config.route, config.router)
        by_route = {'day': 'day', 'translate': 'day', 'night': 'night'}
        self._segmenters = {r: parts[name] for r, name in by_route.items() if name in parts}
        first, *others = self._segmenters.values()
        self.taxonomy = first.taxonomy
        for other in others:
            if other.taxonomy != self.taxonomy:
                raise WeightsError(
                    f"weights '{first.weights.path.name}' label '{self.taxonomy.name}', "
                    f"'{other.weights.path.name}' '{other.taxonomy.name}'; "
                    'all routes must label one taxonomy'
                )
        self._long_sides = {
            route: config.long_side or one.weights.metadata.long_side
            for route, one in self._segmenters.items()
        }
        self.long_side = next(iter(self._long_sides.values()))
        self._palette = self.taxonomy.palette()
        self.most: int | None = None
        """Frames of a batch at most, where the device has no memory for more."""

    @classmethod
    def load(cls, config: PipelineConfig, *, log: Log = lambda text: None) -> Pipeline:
        """
        Load every network that the config's routes need; ``log`` hears what takes long, licences.

        ``WeightsError`` names a file that is missing or unfit and the route that needs it,
        ``BackendError`` what cannot run.
        """
        read = _read(config, log)
        estimator = IlluminationEstimator(read['illumination'])
        name, device = choose([*read.values()], config.backend, config.device)
        backend = open_backend(name, device, config.threads)
        parts: dict[str, Part] = {}
        for name in sorted(read.keys() - {'illumination'}):
            if name == 'night' and read['night'] is read.get('day'):
                parts[name] = parts['day']
            else:
                task = 'translate' if name == 'translator' else 'segment'
                parts[name] = load_part(read[name], backend, log, task)
        return cls(config, backend, parts, estimator)

    def check(self, route: str, router: RouterConfig) -> None:
        """Raise ``WeightsError`` where a route would need weights that are not loaded."""
        for needed in sorted(routes_of(route, router)):
            for name in PARTS[needed]:
                if name not in self.parts:
                    raise WeightsError(
                        f"route '{needed}' needs weights that are not loaded: clean up, set it "
                        f'and weights.{name}, and configure again'
                    )

    def change(self, **given: Any) -> None:
        """
        Change route, router, overlay_alpha or overlay_route, all of those given or none.

        ``WeightsError`` is raised for a route without weights, ``ValueError`` for values out of
        range. Routers keep their state.
        """
        config = replace(self.config, **given)
        self.check(config.route, config.router)
        forced = None if config.route == 'auto' else config.route
        self.routers.change(config.router)
        self.routers.force(forced)
        self.config = config

    def reset(self, reason: str = 'reset') -> None:
        """Let the routers of all cameras decide afresh and name ``reason``."""
        self.routers.reset(reason)

    def process(
        self, frames: Sequence[Frame], want: Want | Sequence[Want] = LABELS_ONLY
    ) -> list[Result]:
        """
        Label frames, batched by route and size; results come in the frames' order.

        Estimator and router run for every frame, the networks only for those of which ``want``
        asks for a picture. At most one frame of a camera belongs into one call.
        """
        wants = [want] * len(frames) if isinstance(want, Want) else want
        if not frames:
            return []
        # a GPU works on these while the CPU looks at the light, if all routes take one size
        early = len(set(self._long_sides.values())) == 1
        jobs = [
            self._shrink(frame, one, self.long_side) if early and one != NOTHING else None
            for frame, one in zip(frames, wants)
        ]
        started = time.perf_counter()
        results = []
        small = np.stack([thumbnail(frame.image, frame.order) for frame in frames])
        for frame, light in zip(frames, self.estimator.estimate(small)):
            decision = self.routers.update(frame.camera, frame.stamp_ns, light)
            results.append(Result(frame=frame, illumination=light, decision=decision))
        estimate = (time.perf_counter() - started) * 1e3 / len(frames)
        for index, result in enumerate(results):
            result.ms['estimate'] = estimate
            if jobs[index] is None and wants[index] != NOTHING:
                long_side = self._long_sides[result.decision.route]
                jobs[index] = self._shrink(result.frame, wants[index], long_side)
        return self._label(results, jobs)

    def segment(self, seen: Result, want: Want = LABELS_ONLY) -> Result:
        """
        Label a frame that ``process`` has decided on without being asked for pictures.

        It may run in another thread than the next decision, but not beside another that labels.
        """
        job = self._shrink(seen.frame, want, self._long_sides[seen.decision.route])
        return self._label([seen], [job])[0]

    def warm_up(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Run the networks once at each camera size (height, width), so that no frame waits."""
        for height, width in sizes:
            blank = Frame(image=np.zeros((height, width, 3), np.uint8))
            # also those that a parameter may choose later
            for route in sorted(self._segmenters):
                if not all(part in self.parts for part in PARTS[route]):
                    continue
                for count in self.backend.batches:
                    job = self._shrink(blank, LABELS_ONLY, self._long_sides[route])
                    try:
                        self._enqueue(route, [job] * count)
                        self.backend.pixels.wait()
                    except Exception as error:
                        if count == 1 or not out_of_memory(error):
                            raise
                        self.most = min(self.most or count, count // 2)
                        break

    def describe(self) -> dict[str, Any]:
        """Return what runs here: device, backend, and each network's weights with their hash."""
        weights: dict[str, dict[str, str]] = {}
        parts: dict[str, Part | IlluminationEstimator] = {**self.parts}
        parts['illumination'] = self.estimator
        for name, part in parts.items():
            metadata = part.weights.metadata
            weights[name] = {
                'file': part.weights.path.name, 'sha256': part.weights.sha256,
                'license': metadata.license,
            }  # fmt: skip
            if isinstance(part, Part) and metadata.task == 'segment':
                fitted = metadata.temperature != 1
                weights[name] |= {
                    'temperature': f'{metadata.temperature:.3f}' if fitted else 'not calibrated',
                    'reliability': 'fitted' if part.has_reliability else 'mean confidence',
                }
        return {
            'device': self.backend.device,
            'backend': self.backend.name,
            'taxonomy': self.taxonomy.name,
            'long_side': self.long_side,
            'weights': weights,
        }

    @property
    def routes_with_reliability(self) -> frozenset[str]:
        """Routes whose weights have learnt to judge whole frames; see ``nightseg calibrate``."""
        return frozenset(route for route, one in self._segmenters.items() if one.has_reliability)

    def _shrink(self, frame: Frame, want: Want, long_side: int) -> _Job:
        """Bring a frame to its network's size, on the backend's device."""
        started = time.perf_counter()
        size = fit(*frame.image.shape[:2], long_side)
        image = self.backend.pixels.shrink(frame.image, frame.order, size)
        ms = {'shrink': (time.perf_counter() - started) * 1e3}
        return _Job(frame=frame, want=want, size=size, image=image, ms=ms)

    def _label(self, results: list[Result], jobs: Sequence[_Job | None]) -> list[Result]:
        """Add the pictures of the jobs to their results; the device is waited for once."""
        batches: dict[tuple[str, tuple[int, int]], list[_Job]] = {}
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
            if job.pictures['labels'].max() >= len(self.taxonomy.classes):
                raise WithheldError(
                    'the network gave no numbers (NaN) or ids of no class: the mask is withheld'
                )
            job.ms['network'] += waited
            if self.config.overlay_route and 'overlay' in job.pictures:
                started = time.perf_counter()
                decision = results[index].decision
                mark(job.pictures['overlay'], decision.state, decision.route)
                job.ms['render'] += (time.perf_counter() - started) * 1e3
            results[index] = replace(
                results[index], ms={**results[index].ms, **job.ms},
                reliability=float(job.reliability[0]), **job.pictures,
            )  # fmt: skip
        return results

    def _enqueue(self, route: str, batch: Sequence[_Job]) -> None:
        """Run one batch without waiting for the device."""
        pixels = self.backend.pixels
        images = pixels.stack([job.image for job in batch])
        started = time.perf_counter()
        translated = None
        if route == 'translate':
            images = translated = self.parts['translator'].run(images)[0]
        labels, confidence, reliability = self._segmenters[route].run(images)
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
                job.pictures[name] = pixels.begin_download(array)
            job.reliability = reliability[index, None]
            job.ms['network'] = network
            job.ms['post'] = (enlarged - started) * 1e3
            job.ms['render'] = (time.perf_counter() - enlarged) * 1e3


def settled(config: PipelineConfig) -> PipelineConfig:
    """Return the config with what 'auto' means here: processes of other machines do the same."""
    read = _read(config, lambda text: None)
    backend, device = choose([*read.values()], config.backend, config.device)
    return replace(config, backend=backend, device=device)


def routes_of(route: str, router: RouterConfig) -> set[str]:
    """Return the routes that can be taken, by the router's table where ``route`` is 'auto'."""
    return set(router.table.routes()) if route == 'auto' else {route}


def _read(config: PipelineConfig, log: Log) -> dict[str, Weights]:
    """Read the weights of every part that the config needs; the same ones once."""
    read: dict[str, Weights] = {}
    files: dict[str, Weights] = {}
    for route in (*sorted(routes_of(config.route, config.router)), 'auto'):
        for part in PARTS[route]:
            name = getattr(config.weights, part)
            if not name:
                raise WeightsError(
                    f"route '{route}' needs weights, but weights.{part} is empty: give a file, or "
                    f"'{part}' for the shipped ones (--weights-{part} {part})"
                )
            if name not in files:
                try:
                    files[name] = load_weights(name)
                except WeightsError as error:
                    raise WeightsError(f"route '{route}': {error}") from error
                if files[name].metadata.license:
                    log(f'{files[name].path.name}: {files[name].metadata.license}')
            read[part] = files[name]
    return read
