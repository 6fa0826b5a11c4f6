# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Threads that outlive their work.

The latest frame of each camera, between the executor's thread and the worker's.

The one thread that computes: it batches whatever frames wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from nightseg_ros.node.watchdog import LATE, Patience, Watch
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.runtime.backend import out_of_memory

T = TypeVar('T')
Job = tuple[Callable[[], None], threading.Event]


class Threads:
    """
    Daemon threads that do one job after another.

    A thread for each job would be simpler, but for as long as the process lives, OpenCV keeps
    0.8 kB for each that ever called it, and OpenVINO 0.3 kB for each network that ran in another
    thread than the one that compiled it.
    """

    def __init__(self, name: str) -> None:
        """Call all of them ``name``."""
        self._name = name
        self._idle: deque[SimpleQueue[Job]] = deque()

    def begin(self, work: Callable[[], None]) -> threading.Event:
        """
        Run ``work`` in a thread that has nothing to do; return what is set once it has ended.

        A thread that is still busy is not waited for, and one that ended by an error is gone.
        """
        ended = threading.Event()
        try:
            jobs = self._idle.pop()
        except IndexError:
            jobs = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(jobs,), name=self._name, daemon=True
            ).start()
        jobs.put((work, ended))
        return ended

    def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns in such a thread, or raise its error."""
        future: Future[T] = Future()

        def keep() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self.begin(keep).wait()
        return future.result()

    def _serve(self, jobs: SimpleQueue[Job]) -> None:
        while True:
            work, ended = jobs.get()
            try:
                work()
                self._idle.append(jobs)
            finally:
                # whoever waits may free what the work held
                del work
                ended.set()


class Mailbox(Generic[T]):
    """One slot a camera; the latest frame wins."""

    def __init__(self) -> None:
        """Open with every slot empty."""
        self._slots: dict[str, T] = {}
        self._condition = threading.Condition()
        self._closed = False

    def put(self, camera: str, item: T) -> T | None:
        """Fill the camera's slot; return the item that was never taken out of it, if any."""
        with self._condition:
            before = self._slots.pop(camera, None)
            if not self._closed:
                self._slots[camera] = item
                self._condition.notify()
            return before

    def take(self) -> list[T]:
        """Wait for an item, then empty every slot, the longest waiting first; [] once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._slots or self._closed)
            items = [] if self._closed else list(self._slots.values())
            self._slots.clear()
            return items

    def close(self) -> None:
        """Drop what waits and let ``take`` return."""
        with self._condition:
            self._closed = True
            self._slots.clear()
            self._condition.notify_all()


#: What the networks are at most of the time.
BATCH = 'the networks have been busy with one batch'


class Client(Protocol):
    """A camera as the worker sees it; every call comes from the worker's thread."""

    name: str

    def open_frame(self, waiting: Waiting) -> Frame | None:
        """Decode, or count and say why not."""

    def wanted(self) -> Want:
        """Return what somebody subscribes to."""

    def publish(self, result: Result, waiting: Waiting) -> None:
        """Hand the result to whoever subscribes."""

    def fail(self, reason: str, error: Exception) -> None:
        """Count and say that a frame was lost, ``reason`` being a key of ``health.DROPS``."""


@dataclass(slots=True)
class Waiting:
    """A message in the mailbox."""

    client: Client
    message: Any
    received: float
    """Seconds of ``time.monotonic``, at the callback's start."""
    ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage: receive (since the stamp), wait, decode, the pipeline's, publish and
    total (from the callback to the labels handed over)."""


class Worker:
    """
    Takes frames from the mailbox, runs the pipeline on them and publishes.

    Nothing that one frame does ends the work; what fails is counted and said by its camera.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        say: Callable[[str], None],
        patience: Patience,
        threads: Threads,
        fall_back: Callable[[], Pipeline | None] = lambda: None,
    ) -> None:
        """
        Work in one of ``threads``.

        ``say`` hears of sizes that are made ready, which can take seconds.

        ``fall_back`` is asked for a pipeline that needs none of the device's memory, once that
        does not suffice for a single frame; None leaves everything as it is.
        """
        self.mailbox: Mailbox[Waiting] = Mailbox()
        self.watch = Watch(time.monotonic())
        self.patience = patience
        self.slow: tuple[float, float] | None = None
        """When (``time.monotonic``) the last batch of over ``LATE`` s ended, and its seconds."""
        self._pipeline = pipeline
        self._fall_back = fall_back
        self._most: int | None = None
        self._say = say
        self._change: PipelineConfig | None = None
        self._sizes: set[tuple[int, int]] = set()
        self._stopping = False
        self._threads = threads
        self._ended: threading.Event | None = None

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._ended is not None and not self._ended.is_set()

    @property
    def dead(self) -> bool:
        """Whether the work has ended although nobody stopped it."""
        return self._ended is not None and self._ended.is_set() and not self._stopping

    def start(self) -> None:
        """Begin to work."""
        self._ended = self._threads.begin(self._run)

    def change(self, config: PipelineConfig) -> None:
        """Let the pipeline change before its next batch to what may change in ``config``."""
        self._change = config

    def stop(self, timeout: float) -> bool:
        """Publish nothing more; return whether the work ended within ``timeout`` seconds."""
        self._stopping = True
        self.mailbox.close()
        return self._ended is None or self._ended.wait(timeout)

    def _run(self) -> None:
        while batch := self.mailbox.take():
            begun = time.monotonic()
            self.watch.begin(BATCH, self.patience.batch, begun)
            self._work(batch)
            self.watch.end()
            now = time.monotonic()
            if now - begun > LATE:
                self.slow = (now, now - begun)

    def _work(self, batch: list[Waiting]) -> None:
        change, self._change = self._change, None
        if change is not None:
            self._pipeline.change(
                route=change.route, router=change.router, overlay_alpha=change.overlay_alpha,
                overlay_route=change.overlay_route,
            )  # fmt: skip
        opened: list[tuple[Waiting, Frame]] = []
        for waiting in batch:
            begun = time.monotonic()
            waiting.ms['wait'] = (begun - waiting.received) * 1e3
            try:
                frame = waiting.client.open_frame(waiting)
            except Exception as error:
                waiting.client.fail('undecodable', error)
                frame = None
            waiting.ms['decode'] = (time.monotonic() - begun) * 1e3
            if frame is not None:
                opened.append((waiting, frame))
        for waiting, result in self._process(opened):
            if self._stopping:
                return
            try:
                waiting.client.publish(result, waiting)
            except Exception as error:
                waiting.client.fail('withheld', error)

    def _process(self, opened: list[tuple[Waiting, Frame]]) -> list[tuple[Waiting, Result]]:
        """
        Segment a batch; where it fails, frame by frame, so that one costs no other.

        Where memory runs out, batches are smaller from then on.
        """
        most = self._most or len(opened)
        if len(opened) > most:
            parts = [opened[at : at + most] for at in range(0, len(opened), most)]
            return [done for part in parts for done in self._process(part)]
        try:
            self._warm_up([frame for _, frame in opened])
            wants = [waiting.client.wanted() for waiting, _ in opened]
            results = self._pipeline.process([frame for _, frame in opened], wants)
            return [(waiting, result) for (waiting, _), result in zip(opened, results)]
        except Exception as error:
            if out_of_memory(error) and self._retreat(len(opened), error):
                return self._process(opened)
            if len(opened) == 1:
                opened[0][0].client.fail('failed', error)
                return []
        return [done for one in opened for done in self._process([one])]

    def _retreat(self, count: int, error: Exception) -> bool:
        """Ask for less memory than a batch of ``count`` frames needs; return whether that is."""
        if count > 1:
            self._most = count // 2
            self._say(f'{error}: at most {self._most} frames at once from now on')
            return True
        self.watch.begin('loading the networks on the CPU', self.patience.load, time.monotonic())
        pipeline = self._fall_back()
        self.watch.begin(BATCH, self.patience.batch, time.monotonic())
        if pipeline is None:
            return False
        self._pipeline = pipeline
        self._most = None
        self._sizes.clear()
        return True

    def _warm_up(self, frames: list[Frame]) -> None:
        """Make every network ready for a new camera's size, so that no switch has to wait."""
        for frame in frames:
            size = (frame.image.shape[0], frame.image.shape[1])
            # a camera that changes its size with every frame shall not pay for it twice
            if size in self._sizes or len(self._sizes) >= 16:
                continue
            self._sizes.add(size)
            begun = time.monotonic()
            self.watch.begin('making the networks ready for a new size', self.patience.load, begun)
            self._pipeline.warm_up([size])
            took = time.monotonic() - begun
            self.watch.begin(BATCH, self.patience.batch, begun + took)
            if took > 1:
                self._say(f'ready for images of {size[1]}×{size[0]} pixels after {took:.1f} s')
