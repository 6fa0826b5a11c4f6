# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The thread that decodes, segments and publishes; the latest image of each camera waits here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field, replace
import math
import threading
import time
import traceback
from typing import Any, TYPE_CHECKING

from nightseg_ros.node.diagnostics import RECOVERY
from nightseg_ros.node.messages import decode
from nightseg_ros.node.watchdog import LATE, Task
from nightseg_ros.perception.frame import BitDepth, Frame, FrameError
from nightseg_ros.perception.pipeline import Pipeline, WithheldError
from nightseg_ros.perception.result import NOTHING, Result
from nightseg_ros.runtime.backend import out_of_memory, release_memory
from nightseg_ros.weights import WeightsError
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nightseg_ros.node.camera import CameraTopics

Pixels = npt.NDArray[np.uint8]

#: What the networks are at most of the time.
BATCH = 'the networks have been busy with one batch'
#: Seconds from a frame's stamp to its arrival above which the stamp is of another day.
LONGEST_WAY = 10.0
#: Seconds by which a stamp lies ahead of the clock where clocks differ or /clock has stopped.
AHEAD = 1.0
#: Seconds between frames of a slow camera.
RARE = 10.0
#: Seconds that the executor's thread rests when it has woken the worker.
HEAD_START = 0.0025


@dataclass(slots=True)
class Waiting:
    """An image message that has been received."""

    camera: CameraTopics
    message: Any
    stamp_ns: int
    """0 where the driver set none."""
    received: float
    """``time.monotonic`` at the callback's start."""
    ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage: receive (since the stamp), wait, decode, the pipeline's, publish and
    total (from the callback to the labels handed over)."""
    wanted: set[str] = field(default_factory=set)
    """The output topics that have subscribers."""


class Worker:
    """
    Takes images, runs the pipeline on them and publishes, from configure to cleanup.

    Nothing that one frame does ends the loop; what fails is counted and logged for its camera.
    ``node.settings`` is read before every batch, so that no change of a parameter gets lost.
    """

    def __init__(
        self, node: Any, threads: Executor, sizes: Sequence[tuple[int, int]],
        log: Callable[[str], None],
    ) -> None:  # fmt: skip
        """
        Load the networks, in the thread that will run them, and make ``sizes`` ready.

        ``threads`` has room for one that hangs and another; ``log`` takes what takes long or must
        be known.
        """
        self.slow: tuple[float, float] | None = None
        """When (``time.monotonic``) the last batch of over ``LATE`` s ended, and its seconds."""
        self.memory_problem = ''
        """Why the networks run on the CPU, or cannot."""
        self._node, self._threads, self._log = node, threads, log
        self._most: int | None = None
        self._short = -math.inf
        """When memory was short."""
        self._failing: tuple[float, float] | None = None
        """Since when the networks have failed for every frame, and when they did last."""
        self._sizes = set(sizes)
        self._slots: dict[str, Waiting] = {}
        self._condition = threading.Condition()
        self._stopping = True
        self._loop: Future[None] | None = None
        self._applied = self._loaded = config = node.settings.pipeline

        def load() -> Pipeline:
            try:
                pipeline = Pipeline.load(config, log=log)
                pipeline.warm_up(sizes)
            except Exception as error:
                fallback = node.settings.cpu_fallback and config.device != 'cpu'
                if not (fallback and out_of_memory(error)):
                    raise
                pipeline = self._load_on_cpu('the device')
                pipeline.warm_up(sizes)
            return pipeline

        self.pipeline = threads.submit(load).result()

    def start(self) -> None:
        """Begin to work."""
        self.pipeline.reset(reason='activated')
        self._stopping, self._failing, self._most = False, None, None
        self._loop = self._threads.submit(self._run)

    def stop(self, timeout: float) -> bool:
        """Publish nothing more; return whether the work ended within ``timeout`` seconds."""
        with self._condition:
            self._stopping = True
            self._slots.clear()
            self._condition.notify_all()
        return self._loop is None or not wait([self._loop], timeout).not_done

    # -- the executor's thread ----------------------------------------------------------------

    def put(self, camera: CameraTopics, message: Any, stamp_ns: int, now: float) -> None:
        """Let an image wait; it takes the place in the queue of one of the same camera."""
        waiting = Waiting(camera, message, stamp_ns, now)
        age = self._age(stamp_ns)
        # a bag's stamps are years old, and say nothing of the way that a frame came
        if age is not None and 0 <= age < LONGEST_WAY:
            waiting.ms['receive'] = age * 1e3
        with self._condition:
            superseded = camera.names.name in self._slots
            idle = not self._slots and self not in self._node.activity.tasks
            if not self._stopping:
                self._slots[camera.names.name] = waiting
                self._condition.notify()
        if superseded:
            camera.health.drop(now, 'superseded')
        if idle:
            # rclpy would hold the interpreter's lock, which the worker needs until a network runs
            time.sleep(HEAD_START)

    # -- the worker's thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._take():
                begun = time.monotonic()
                self._apply()
                self._task(BATCH, self._node.settings.watchdog_s)
                opened = [(waiting, frame) for waiting in batch if (frame := self._open(waiting))]
                if opened:
                    self._process(opened)
                self._node.activity.tasks.pop(self, None)
                now = time.monotonic()
                if now - begun > LATE:
                    self.slow = (now, now - begun)
        except BaseException as error:
            if self._stopping:
                self._node.activity.tasks.pop(self, None)
            else:
                self._task(f'the worker thread has ended by an error: {error!r}', -1.0)
            raise

    def _take(self) -> list[Waiting]:
        """
        Wait for images, and return those to process together; [] once stopped.

        Where a backend has no batches, as on a CPU, they would be no faster than frames one by
        one, and each mask as late as the last: there the camera that has waited longest comes
        alone.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._slots or self._stopping)
            if self._stopping:
                return []
            cameras = list(self._slots)
            most = self.pipeline.backend.batches[-1]
            del cameras[most:]
            return [self._slots.pop(camera) for camera in cameras]

    def _apply(self) -> None:
        """Let the pipeline follow the parameters."""
        wanted = self._node.settings.pipeline
        if wanted is not self._applied:
            self.pipeline.change(
                route=wanted.route, router=wanted.router, overlay_alpha=wanted.overlay_alpha,
                overlay_route=wanted.overlay_route,
            )  # fmt: skip
            self._applied = wanted

    def _open(self, waiting: Waiting) -> Frame | None:
        """Decode, or count and log why not."""
        camera, begun = waiting.camera, time.monotonic()
        waiting.ms['wait'] = (begun - waiting.received) * 1e3
        if self._too_old(waiting, 'frames are too late'):
            return None
        message = waiting.message
        encoding = getattr(message, 'encoding', '') or getattr(message, 'format', '')
        # what the values of another encoding were says nothing of these
        depth = camera.bit_depth if encoding == camera.encoding else BitDepth()
        sixteen = depth.sixteen
        try:
            image, order = decode(message, depth)
        except Exception as error:
            self._fail(waiting, 'undecodable', 'a frame could not be read', error)
            return None
        waiting.ms['decode'] = (time.monotonic() - begun) * 1e3
        camera.encoding, camera.bit_depth = encoding, depth
        if depth.sixteen and not sixteen and depth.twelve:
            text = 'pictures have values from 4096 on: read as 16 bits from now on'
            camera.health.warn(begun, 'depth', text, log=text)
        size, before = (image.shape[0], image.shape[1]), camera.size
        if before is not None and before != size:
            text = f'images changed from {before[1]}×{before[0]} to {size[1]}×{size[0]}'
            camera.health.counts['size_changes'] += 1
            camera.health.warn(begun, 'size', 'the size of the images changed', log=text)
        camera.size = size
        # a router needs a clock that runs, also where the camera has none
        stamp_ns = waiting.stamp_ns or int(waiting.received * 1e9)
        return Frame(
            image=image, order=order, stamp_ns=stamp_ns, camera=camera.names.name,
            frame_id=message.header.frame_id,
        )  # fmt: skip

    def _too_old(self, waiting: Waiting, what: str) -> bool:
        """Tell whether a frame is older than ``max_age``, and count it."""
        age, limit = self._age(waiting.stamp_ns), self._node.settings.max_age
        if limit and age is not None and age < -AHEAD:
            text = "frames are stamped ahead of the node's clock: max_age cannot tell their age"
            waiting.camera.health.warn(time.monotonic(), 'ahead', text, log=text)
        if not limit or age is None or age <= limit:
            return False
        text = f'{what}: {age:.1f} s old, max_age is {limit:g} s'
        waiting.camera.health.drop(time.monotonic(), 'too_old', text)
        return True

    def _process(self, opened: list[tuple[Waiting, Frame]]) -> None:
        """
        Segment and publish a batch; where it fails, frame by frame, so that one costs no other.

        Where memory runs out, batches are smaller from then on.
        """
        count = len(opened)
        most = min(self._most or count, self.pipeline.most or count)
        if len(opened) > most:
            for at in range(0, len(opened), most):
                self._process(opened[at:][:most])
            return
        frames = [frame for _, frame in opened]
        try:
            self._warm_up(frames)
            wants = []
            for waiting, _ in opened:
                waiting.wanted, want = waiting.camera.wanted()
                wants.append(want)
            results = self.pipeline.process(frames, wants)
        except Exception as error:
            if out_of_memory(error):
                # what its frames hold would be missing in the next try
                traceback.clear_frames(error.__traceback__)
            if out_of_memory(error) and self._need_less_memory(len(opened), error):
                self._process(opened)
            elif len(opened) == 1 and isinstance(error, WithheldError):
                self._fail(opened[0][0], 'withheld', 'a mask is withheld', error)
            elif len(opened) == 1:
                self._fail(opened[0][0], 'failed', 'a frame could not be segmented', error)
                self._end_if_hopeless(error)
            else:
                for one in opened:
                    self._process([one])
            return
        if any(want != NOTHING for want in wants):
            # the networks work
            self._failing = None
            recovered = time.monotonic() - self._short > RECOVERY
            if recovered and self.pipeline.backend.device != 'cpu':
                self.memory_problem = ''
        for (waiting, _), result in zip(opened, results):
            if self._stopping:
                return
            # networks that had to be made ready take seconds
            if self._too_old(waiting, 'masks are made too late'):
                continue
            try:
                self._publish(waiting, result)
            except Exception as error:
                self._fail(waiting, 'withheld', 'a mask is withheld', error)

    def _warm_up(self, frames: list[Frame]) -> None:
        """Make every network ready for a new camera's size, so that no switch has to wait."""
        for frame in frames:
            size = (frame.image.shape[0], frame.image.shape[1])
            # a camera that changes its size with every frame shall not pay for it twice
            if size in self._sizes or len(self._sizes) >= 16:
                continue
            self._sizes.add(size)
            settings, begun = self._node.settings, time.monotonic()
            self._task('making the networks ready for a new size', settings.watchdog_load_s)
            try:
                self.pipeline.warm_up([size])
            finally:
                # the other frames of a batch go on where this fails
                self._task(BATCH, settings.watchdog_s)
            took = time.monotonic() - begun
            if took > 1:
                self._log(f'ready for images of {size[1]}×{size[0]} pixels after {took:.1f} s')

    def _need_less_memory(self, count: int, error: Exception) -> bool:
        """
        Make batches smaller than ``count`` frames, or else load the networks on the CPU.

        Return whether that was possible.
        """
        settings, device = self._node.settings, self.pipeline.backend.device
        self._short = time.monotonic()
        if count > 1:
            self._most = count // 2
            self._log(f'{error}: batches have at most {self._most} frames from now on')
            return True
        if device == 'cpu':
            return False
        if not settings.cpu_fallback:
            self.memory_problem = f'{device} is out of memory, and cpu_fallback is off'
            return False
        self._task('loading the networks on the CPU', settings.watchdog_load_s)
        routers, weights = self.pipeline.routers, self.pipeline.describe()['weights']
        self.pipeline = self._load_on_cpu(device)
        if self.pipeline.describe()['weights'] != weights:
            # their classes may be others than those that were announced
            raise WeightsError('files of weights have changed since configure')
        self.pipeline.routers = routers
        release_memory()
        self._sizes.clear()
        # the parameters may have changed since
        self._applied = self._loaded
        self._apply()
        return True

    def _load_on_cpu(self, device: str) -> Pipeline:
        problem = f'{device} is out of memory: the networks run on the CPU now, more slowly'
        self._node.get_logger().error(problem)
        # all that configure loaded, whatever route is forced now
        config = replace(self._loaded, device='cpu', backend='auto')
        pipeline = Pipeline.load(config, log=self._log)
        # the diagnostics name the device only once the networks are there
        self.memory_problem = problem
        return pipeline

    def _end_if_hopeless(self, error: Exception) -> None:
        """Raise where nothing has worked for ``watchdog_s``: a device that failed stays so."""
        if isinstance(error, FrameError):
            return
        now, limit = time.monotonic(), self._node.settings.watchdog_s
        begun, last = self._failing or (now, now)
        # frames that are far apart say nothing of the time between
        self._failing = (now if now - last > max(limit, RARE) else begun), now
        if now - self._failing[0] > limit:
            raise RuntimeError(f'no frame could be segmented for {limit:g} s: {error}') from error

    def _publish(self, waiting: Waiting, result: Result) -> None:
        camera, settings, header = waiting.camera, self._node.settings, waiting.message.header
        begun = time.monotonic()
        published = camera.publish(header, result, waiting.wanted, settings)
        done = time.monotonic()
        ms = waiting.ms | result.ms
        ms['publish'] = (done - begun) * 1e3
        ms['total'] = (min(published.values(), default=done) - waiting.received) * 1e3
        if 'status' in waiting.wanted:
            camera.publish_status(header, result, ms, self._age(waiting.stamp_ns))
            published['status'] = done
        health, decision, reliability = camera.health, result.decision, result.reliability
        health.counts.update(['served', *(f'published.{topic}' for topic in published)])
        health.durations['latency_ms'].append(ms['total'])
        score = result.illumination.score
        health.note = f'route {decision.route}, {decision.state}, score {score:.3f}'
        if not math.isfinite(score):
            health.events['light'] = (done, 'the light is unknown: the estimator gave no number')
        health.shown['reliability'] = 'unknown' if reliability is None else reliability
        # only some weights have learnt to judge whole frames; written so that NaN is too little
        least = (
            settings.min_reliability if decision.route in camera.routes_with_reliability else 0.0
        )
        if reliability is not None and not reliability >= least:
            text = f'cannot see: reliability {reliability:.2f}; is the lens covered, blinded '
            text += 'or out of focus? The masks are published all the same'
            health.events['blind'] = (done, text)
        health.served.append(done)
        health.last_useful = done
        if decision.switched:
            text = f'{camera.names.name}: route {decision.route} now: {decision.reason}'
            self._node.get_logger().info(text)

    def _fail(self, waiting: Waiting, reason: str, what: str, error: Exception) -> None:
        # what FrameError says is enough
        kind = '' if isinstance(error, FrameError) else f'{type(error).__name__}: '
        waiting.camera.health.drop(time.monotonic(), reason, f'{what}: {kind}{error}')

    def _task(self, text: str, limit: float) -> None:
        self._node.activity.tasks[self] = Task(text, limit, time.monotonic())

    def _age(self, stamp_ns: int) -> float | None:
        """Return the seconds since a stamp by the node's clock, None for no stamp."""
        now_ns = int(self._node.get_clock().now().nanoseconds)
        return (now_ns - stamp_ns) / 1e9 if stamp_ns else None
