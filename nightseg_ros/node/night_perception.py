# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: several cameras in, masks out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import itertools
from typing import Any

from nightseg_ros.config import ConfigError
from nightseg_ros.node.camera import CameraTopics, TOPICS
from nightseg_ros.node.diagnostics import HealthProblem, RECOVERY
from nightseg_ros.node.lifecycle import ManagedNode
from nightseg_ros.node.parameters import Settings
from nightseg_ros.node.worker import Worker
from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.weights import WeightsError

#: Camera sizes (height, width) that are made ready by configure. The networks' input depends on
#: the aspect alone. Another aspect is made ready by a camera's first frame: beforehand, it would
#: keep 180 MB for three networks, and start would take half as long again.
COMMON_SIZES = ((720, 1280),)


class NightPerception(ManagedNode):
    """
    Segments the images of its cameras with the network that the light asks for.

    Parameters are read and weights loaded by configure; subscriptions, active publishers and the
    worker's loop live from activate to deactivate; cleanup frees everything.
    """

    expected = (ConfigError, WeightsError, BackendError)

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; with ``autostart`` the first spin configures and activates."""
        self._worker: Worker | None = None
        self._cameras: list[CameraTopics] = []
        # Its threads outlive a configuration: OpenCV keeps 0.8 kB for each thread that ever
        # called it, OpenVINO 0.3 kB for each network that ran in another than compiled it. One
        # works, and a second one does where the first hangs.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix='nightseg worker')
        super().__init__('night_perception', Settings, **options)

    def _prepare(self) -> None:
        """Load the weights, create the output topics."""
        self._busy('configure', self.settings.watchdog_load_s)
        cameras = self.settings.camera_names
        # remappings are of whole names; one legend for all is fine
        outputs = (topic.name for topic in TOPICS if not topic.latched)
        pairs = itertools.product(outputs, cameras)
        self.refuse_same_topics('cameras', (f'{c.output}/{name}' for name, c in pairs))
        self.refuse_same_topics('image_topics', (camera.image_topic for camera in cameras))
        self._worker = Worker(self, self._threads, COMMON_SIZES, self._log)
        for names in cameras:
            self._cameras.append(CameraTopics(self, names, self._worker.pipeline))

    def _begin(self) -> str:
        """Start the worker, subscribe."""
        assert self._worker is not None
        self._worker.start()
        for camera in self._cameras:
            camera.subscribe(self._worker.put)
        topics = ', '.join(self.resolve_topic_name(c.names.image_topic) for c in self._cameras)
        return f'images on {topics}'

    def stop(self, timeout: float) -> bool:
        """Unsubscribe, stop the worker."""
        self._busy('stopping', timeout + self._batch_limit())
        self.unsubscribe()
        if self._worker is None or self._worker.stop(timeout):
            return True
        # on_error, which comes next, must not wait for it again, nor the watchdog end it
        self.activity.tasks.pop(self._worker, None)
        self._worker = None
        self._failure = f'the worker has not ended within {timeout:g} s'
        self.get_logger().error(self._failure)
        return False

    def _release(self) -> None:
        """Free networks and cameras."""
        self._cameras = []
        self._worker = None

    def destroy_node(self) -> None:
        """Leave the graph, and let idle threads end."""
        self._threads.shutdown(wait=False)
        super().destroy_node()

    def check_settings(self, settings: Settings) -> None:
        """Raise ``WeightsError`` where the loaded networks cannot do what is asked for."""
        if self._worker is not None:
            self._worker.pipeline.check(settings.pipeline.route, settings.pipeline.router)

    # -- diagnostics --------------------------------------------------------------------------

    def _log(self, text: str) -> None:
        """Log what takes long or must be known, and show that the node lives meanwhile."""
        self.get_logger().info(text)
        self._report()

    def _problems(self, now: float) -> list[HealthProblem]:
        found, worker = super()._problems(now), self._worker
        if worker is None:
            return found
        if worker.memory_problem:
            found.append(HealthProblem('WARN', worker.memory_problem))
        busy = self.activity.hang is not None
        if not busy and worker.slow is not None and now - worker.slow[0] < RECOVERY:
            text = f'a batch of frames took {worker.slow[1]:.1f} s'
            found.append(HealthProblem('WARN', text))
        return found

    def _description(self) -> tuple[Mapping[str, Any], Mapping[str, object]]:
        worker = self._worker
        description = {} if worker is None else worker.pipeline.describe()
        return description, {'cameras': len(self._cameras)}
