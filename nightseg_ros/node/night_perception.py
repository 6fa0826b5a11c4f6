# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: several cameras in, masks out."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

from nightseg_ros.config import ConfigError
from nightseg_ros.node.camera import Camera
from nightseg_ros.node.diagnostics import RECOVERY, Problem, camera_status, node_status
from nightseg_ros.node.lifecycle import ManagedNode
from nightseg_ros.node.main import give_back
from nightseg_ros.node.parameters import PARAMETERS, Settings
from nightseg_ros.node.watchdog import Patience, Stall
from nightseg_ros.node.worker import Threads, Worker
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.weights import WeightsError

#: Camera sizes (height, width) that are made ready by configure. The networks' input depends on
#: the aspect alone, so that nearly every camera's first frame finds its networks compiled.
COMMON_SIZES = ((720, 1280), (480, 640))
DEAD = Stall(text='the worker has died', seconds=0.0, limit=-1.0)


class NightPerception(ManagedNode):
    """
    Segments the images of its cameras by the network that the light asks for.

    Parameters are read and weights loaded by configure; subscriptions, the publishers' activity
    and the worker live from activate to deactivate; cleanup frees everything.
    """

    expected = (ConfigError, WeightsError, BackendError)

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; with ``autostart`` the first spin configures and activates."""
        super().__init__('night_perception', PARAMETERS, Settings.from_values, **options)
        self.declared.configured = lambda: self._pipeline is not None
        self.declared.check_settings = self._check_change
        self.declared.apply_settings = self._apply_change
        self._settings: Settings | None = None
        self._pipeline: Pipeline | None = None
        self._threads = Threads('nightseg worker')
        self._worker: Worker | None = None
        self._cameras: list[Camera] = []
        self._worry = ''

    # -- lifecycle ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Read the parameters, load the weights, create the output topics."""
        self._settings = settings = self.declared.settings()
        self._busy('configure', self._patience.load)
        # in the thread that will run them
        self._pipeline = self._threads.run(self._load)
        for names in settings.cameras:
            self._cameras.append(Camera(self, names, settings, self._pipeline))
        # what is loaded stays: a search of 200,000 objects for cycles would hold up a frame
        gc.collect()
        gc.freeze()
        give_back()

    def _load(self) -> Pipeline:
        assert self._settings is not None
        pipeline = Pipeline.load(self._settings.pipeline, say=self._say)
        pipeline.warm_up(COMMON_SIZES)
        return pipeline

    def _begin(self) -> str:
        """Start the worker, subscribe."""
        assert self._pipeline is not None
        self._pipeline.reset(reason='activated')
        self._worker = Worker(
            self._pipeline, self.get_logger().info, self._patience, self._threads, self._fall_back
        )
        self._worker.start()
        for camera in self._cameras:
            camera.outputs.announce()
            camera.open(self._worker)
        topics = ', '.join(self.resolve_topic_name(c.names.image_topic) for c in self._cameras)
        return f'images on {topics}'

    def _end(self, timeout: float) -> bool:
        """Unsubscribe, stop the worker."""
        for camera in self._cameras:
            camera.close()
        worker, self._worker = self._worker, None
        if worker is None or worker.stop(timeout):
            return True
        self._failure = f'the worker has not ended within {timeout:g} s'
        self.get_logger().error(self._failure)
        return False

    def _release(self) -> None:
        """Free networks and output topics."""
        for camera in self._cameras:
            camera.outputs.destroy()
        self._cameras = []
        self._pipeline = self._settings = None
        self._worry = ''

    def _fall_back(self) -> Pipeline | None:
        """Load the networks on the CPU where the device's memory is out; the worker asks."""
        settings, pipeline = self._settings, self._pipeline
        if settings is None or pipeline is None or pipeline.backend.device == 'cpu':
            return None
        lead = f'{pipeline.backend.device} is out of memory'
        if not settings.cpu_fallback:
            self._worry = f'{lead}, and cpu_fallback is off'
            return None
        worry = f'{lead}: the networks run on the CPU now, more slowly'
        self.get_logger().error(worry)
        config = replace(settings.pipeline, device='cpu', backend='auto')
        self._pipeline = Pipeline.load(config, say=self._say)
        # told of a device only once it is that device
        self._worry = worry
        return self._pipeline

    # -- parameters ---------------------------------------------------------------------------

    def _check_change(self, settings: Settings) -> None:
        """Raise where the loaded networks cannot do what ``settings`` ask for."""
        if self._pipeline is not None:
            self._pipeline.check(settings.pipeline.route, settings.pipeline.router)

    def _apply_change(self, settings: Settings) -> None:
        self._settings = settings
        for camera in self._cameras:
            camera.settings = settings
        if self._worker is not None:
            self._worker.patience = settings.patience
            self._worker.change(settings.pipeline)
        elif self._pipeline is not None:
            self._pipeline.change(
                route=settings.pipeline.route,
                router=settings.pipeline.router,
                overlay_alpha=settings.pipeline.overlay_alpha,
                overlay_route=settings.pipeline.overlay_route,
            )

    # -- diagnostics --------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        """Log what takes long or must be known, and show that the node lives meanwhile."""
        self.get_logger().info(text)
        self._report()

    @property
    def _patience(self) -> Patience:
        return Patience() if self._settings is None else self._settings.patience

    def patience(self) -> float:
        """Return the seconds that what is under way may take."""
        worker = self._worker
        return max(super().patience(), worker.watch.limit if worker else 0.0)

    def look(self, now: float) -> Stall | None:
        """Return what stalls at ``now``, the worst of it; the watchdog's thread asks."""
        found, worker = [self._watch.look(now)], self._worker
        if worker is not None:
            found.append(DEAD if worker.dead else worker.watch.look(now))
        stalls = [stall for stall in found if stall is not None]
        self._alarm = max(stalls, key=lambda s: (s.hopeless, s.seconds), default=None)
        return self._alarm

    def _tick(self) -> None:
        self._busy()
        for camera in self._cameras:
            camera.match()
        self._report()

    def _report(self) -> None:
        """Publish the state of the node and of its cameras."""
        now = time.monotonic()
        name = self.get_fully_qualified_name().strip('/')
        statuses = []
        if self._worker is not None and self._settings is not None:
            statuses = [
                camera_status(
                    name, camera.name, camera.health, camera.source(), now,
                    self._settings.silent_after,
                )
                for camera in self._cameras
            ]  # fmt: skip
        description = {} if self._pipeline is None else self._pipeline.describe()
        own = node_status(
            name,
            self._state_machine.current_state[1],
            self._problems(now),
            description,
            {'cameras': len(self._cameras)},
        )
        self._publish_diagnostics([own, *statuses])

    def _problems(self, now: float) -> list[Problem]:
        found = self._common_problems()
        if self._worry:
            found.append(Problem(level='WARN', text=self._worry))
        worker = self._worker
        if self._alarm is None and worker is not None and worker.slow is not None:
            when, took = worker.slow
            if now - when < RECOVERY:
                found.append(Problem(level='WARN', text=f'a batch of frames took {took:.1f} s'))
        return found
