# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Camera frame → illumination → route → network → mask: the whole way, in one object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnail
from nightseg_ros.perception.loading import load_networks, routes_of
from nightseg_ros.perception.pipeline_config import PipelineConfig, Route
from nightseg_ros.perception.rendering import Renderer
from nightseg_ros.perception.result import LABELS_ONLY, Image, Result, Want
from nightseg_ros.perception.router import Route as FixedRoute
from nightseg_ros.perception.router import RouterBank, RouterConfig
from nightseg_ros.perception.segmenter import Segmenter
from nightseg_ros.perception.translator import Translator
from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.runtime.geometry import NetworkSize, fit
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError


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
