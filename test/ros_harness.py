# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node in a process of its own, and a client that plays cameras and consumers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
import contextlib
import itertools
import json
import math
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from typing import Any, TypeVar

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nightseg_ros.dds import profile_environment
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.shared_memory import held_locks, remove_orphans
import numpy as np
import numpy.typing as npt
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32
import tiny_weights

Pixels = npt.NDArray[np.uint8]
#: Seconds for anything that must happen: this may be a small machine under heavy load.
PATIENCE = 60.0
SECOND = 1_000_000_000
#: Where each transition leads.
TRANSITIONS = {
    'configure': 'inactive', 'cleanup': 'unconfigured', 'activate': 'active',
    'deactivate': 'inactive', 'shutdown': 'finalized',
}  # fmt: skip


def tiny_parameters(folder: Path, **more: Any) -> dict[str, Any]:
    """Return parameters with tiny weights, written to ``folder``, on one thread of torch."""
    files = {name: str(path) for name, path in tiny_weights.write_all(folder).items()}
    return {**files, 'backend': 'torch', 'threads': 1, **more}


def offline(parameters: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline of ``tiny_parameters``, to compare with."""
    names = {n[8:]: path for n, path in parameters.items() if n.startswith('weights.')}
    return Pipeline.load(
        PipelineConfig(weights=WeightsConfig(**names), backend='torch', threads=1)
    )


class Process:
    """A Python process, its output in a file."""

    def __init__(self, log: Path, *command: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=log.open('w'),
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'ROS_LOG_DIR': str(log.parent)},
        )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def until(self, words: str) -> None:
        """Wait until it has said ``words``."""
        end = time.monotonic() + 2 * PATIENCE
        while True:
            # what it said last is in the log once it has ended
            ended = self.process.poll() is not None
            if words in self.text:
                return
            assert time.monotonic() < end and not ended, self.text
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT, timeout: float = PATIENCE) -> int:
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()


class NodeProcess(Process):
    """``night_perception`` with the given parameters."""

    name = 'night_perception'
    command: tuple[str, ...] = ('-m', 'nightseg_ros.node.main')

    def __init__(
        self, log: Path, parameters: Mapping[str, Any] | None = None, *ros_arguments: str
    ) -> None:
        pairs = [f'{name}:={_yaml(value)}' for name, value in (parameters or {}).items()]
        arguments = [part for pair in pairs for part in ('-p', pair)]
        super().__init__(log, *self.command, '--ros-args', *arguments, *ros_arguments)

    def segments(self) -> set[Path]:
        """Return the segments in /dev/shm that it owns; its ports may be others' as well."""
        found = {lock.with_name(lock.name[:-3]) for lock, _ in held_locks(self.process.pid)}
        return {path for path in found if '_port' not in path.name}

    def until_segments(self) -> set[Path]:
        """Wait for the large segment of the profile for large images; return all of them."""
        end = time.monotonic() + PATIENCE
        while large(self.segments()) < 1:
            assert time.monotonic() < end and self.process.poll() is None, self.text
            time.sleep(0.05)
        return self.segments()

    def ends(self, number: int, *codes: int) -> None:
        """Let a signal end it within two seconds with code 0, or ``codes``, and leave nothing."""
        segments, begun = self.segments(), time.monotonic()
        assert self.stop(number, timeout=10) in (codes or (0,)), self.text
        assert time.monotonic() - begun < 2
        assert not re.search('Traceback|terminate called|Segmentation', self.text), self.text
        assert not [path for path in segments if path.exists()]


def large(segments: set[Path]) -> int:
    """Return how many of them exist and are those of the profile for large images."""
    return sum(path.exists() and path.stat().st_size > 60_000_000 for path in segments)


class FaultyNode(NodeProcess):
    """The node whose networks do what the file named by NIGHTSEG_FAULT says."""

    command = (str(Path(__file__).parent / 'faulty_node.py'),)


def node_with(before: str = 'pass', after: str = 'pass') -> type[NodeProcess]:
    """Return the node with a line of Python that runs before it is made and one after it."""

    class Changed(NodeProcess):
        command = (
            '-c',
            'import time\n'
            'from nightseg_ros.node.main import serve\n'
            'def make():\n'
            # imported before, its threads would take the signals
            '    from nightseg_ros.node import night_perception, worker\n'
            f'    {before}\n'
            '    node = night_perception.NightPerception()\n'
            f'    {after}\n'
            '    return node\n'
            'serve("night_perception", make)',
        )

    return Changed


P = TypeVar('P', bound=Process)


@contextlib.contextmanager
def ended(process: P) -> Iterator[P]:
    """Let a process run; whatever happens, it is gone afterwards."""
    try:
        yield process
    except BaseException:
        print(process.text)
        raise
    finally:
        # killed, it would leave its shared memory behind
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(PATIENCE)
        process.process.kill()
        process.process.wait()


def running(
    log: Path,
    parameters: Mapping[str, Any] | None = None,
    *ros_arguments: str,
    kind: type[NodeProcess] = NodeProcess,
) -> contextlib.AbstractContextManager[NodeProcess]:
    """Run the node."""
    return ended(kind(log, parameters, *ros_arguments))


@contextlib.contextmanager
def served(
    folder: Path, parameters: Mapping[str, Any], *ros_arguments: str,
    kind: type[NodeProcess] = NodeProcess, namespace: str = '', state: str = 'active',
) -> Iterator[Client]:  # fmt: skip
    """Run a node and yield a client that reads its diagnostics, once it is in ``state``."""
    arguments = ('-r', f'__ns:={namespace}') if namespace else ()
    with (
        running(folder / 'log', parameters, *arguments, *ros_arguments, kind=kind) as process,
        Client(f'{namespace}/{kind.name}', process=process) as client,
    ):
        client.reach(state)
        yield client


class Client:
    """A node in the test's process: it publishes images and keeps what comes back."""

    def __init__(
        self, target: str = '/night_perception', process: NodeProcess | None = None
    ) -> None:
        os.environ.update(profile_environment())
        # what was killed as it started may have left what a participant waits for
        remove_orphans()
        self.context = Context()
        rclpy.init(context=self.context)
        name = f'client{target.replace("/", "_")}'
        self.node = rclpy.create_node(name, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.target = target
        self.process: Any = process
        self.got: dict[str, list[Any]] = defaultdict(list)
        self.stamps = itertools.count(1_700_000_000 * SECOND, SECOND // 10)
        self._subscriptions: dict[str, Any] = {}
        # early, so that its server has found it before it is asked
        self._clients: dict[str, Any] = {
            'change_state': self.node.create_client(ChangeState, f'{target}/change_state')
        }
        self._publishers: list[Any] = []
        self._goal = ''
        self.listen('/diagnostics', DiagnosticArray)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()

    # -- topics -------------------------------------------------------------------------------

    def publisher(
        self, topic: str, kind: Any = Image, *, reliable: bool = True, latched: bool = False
    ) -> Any:
        qos = _qos(reliable, 5)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        publisher = self.node.create_publisher(kind, topic, qos)
        self._publishers.append(publisher)
        return publisher

    def reset(self) -> None:
        """Forget messages, subscriptions and publishers, but for /diagnostics."""
        for topic in [t for t in self._subscriptions if t != '/diagnostics']:
            self.node.destroy_subscription(self._subscriptions.pop(topic))
            self.got.pop(topic, None)
        for publisher in self._publishers:
            self.node.destroy_publisher(publisher)
        self._publishers.clear()

    def listen(
        self, topic: str, kind: Any = Image, *, reliable: bool = True, latched: bool = False
    ) -> None:
        qos = _qos(reliable, 50)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self._subscriptions[topic] = self.node.create_subscription(
            kind, topic, lambda message: self.got[topic].append(message), qos
        )

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def until(self, met: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Spin until ``met`` returns something true, and return that."""
        end = time.monotonic() + timeout
        while not (result := met()):
            assert time.monotonic() < end, f'not within {timeout} s: {what}'
            self.executor.spin_once(timeout_sec=0.05)
        return result

    def connect(self, *publishers: Any) -> None:
        """Wait until the node subscribes to all ``publishers``."""
        for one in publishers:
            self.until(one.get_subscription_count, f'a subscription to {one.topic_name}')

    def heard(self, *topics: str) -> None:
        """
        Wait until the subscription to every one of ``topics`` has met a publisher.

        That publisher may meet the subscription later, and nothing here can see when: what it
        publishes until then is lost, and has to be asked for again.
        """
        for topic in topics:
            met = self._subscriptions[topic].get_publisher_count
            self.until(met, f'a publisher of {topic}')

    def feed(self, publish: Callable[[], Any], met: Callable[[], Any], what: str) -> Any:
        """Publish five times a second until ``met`` returns something true; return that."""

        def fed() -> Any:
            publish()
            self.spin(0.2)
            return met()

        return self.until(fed, what)

    def exchange(self, publisher: Any, message: Any, *topics: str) -> Any:
        """
        Publish a message until its answers (by stamp) have come on all ``topics``.

        Return the answer, or a list of them. A try after the first one is stamped later: the node
        drops a stamp that it has served, also where its answer found no subscriber yet.
        """
        stamp = message.header.stamp

        def answers() -> list[Any] | None:
            found = [self.of_stamp(topic, stamp) for topic in topics]
            return None if None in found else found

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            publisher.publish(message)
            with contextlib.suppress(AssertionError):
                found = self.until(answers, ', '.join(topics), timeout=3.0)
                return found if len(topics) > 1 else found[0]
            stamp.nanosec += 1000
        raise AssertionError(f'no answer on all of {topics} to the frame of {stamp}')

    def of_stamp(self, topic: str, stamp: Any) -> Any:
        """Return the kept message of that stamp."""
        return next((m for m in self.got[topic] if m.header.stamp == stamp), None)

    # -- diagnostics --------------------------------------------------------------------------

    def watch_diagnostics(self) -> None:
        """Do nothing: a client always reads them. Scripts that use this file call it."""

    def status(self, name: str) -> tuple[str, str, dict[str, str]] | None:
        """Return level, message and values of the latest status whose name ends in ``name``."""
        for array in reversed(self.got['/diagnostics']):
            for status in array.status:
                if status.name.endswith(f': {name}'):
                    level = {b'\x00': 'OK', b'\x01': 'WARN', b'\x02': 'ERROR'}[status.level]
                    values = {item.key: item.value for item in status.values}
                    return level, status.message, values
        return None

    def says(self, name: str, words: str = '', *, level: str = '') -> bool:
        """Return whether the latest status has those words and that level ('' for any)."""
        found = self.status(name)
        return found is not None and level in ('', found[0]) and words in found[1]

    def diagnosed(self, name: str, level: str, words: str = '') -> dict[str, str]:
        """Wait for a status of that level ('' for any) with those words; return its values."""
        try:
            self.until(lambda: self.says(name, words, level=level), f'{name} {words}')
            return self.status(name)[2]
        except AssertionError as error:
            raise AssertionError(f'{error}; the last was {self.status(name)}') from None

    def told(self, publish: Callable[[], Any], name: str, words: str, level: str = '') -> float:
        """Publish until a status has that level and those words; return the seconds it took."""
        begun = time.monotonic()
        self.feed(publish, lambda: self.says(name, words, level=level), f'{name} {level} {words}')
        return time.monotonic() - begun

    # -- services -----------------------------------------------------------------------------

    def call(self, name: str, kind: Any, request: Any) -> Any:
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, f'{self.target}/{name}')
        self.until(client.service_is_ready, f'the service {name}')
        # a server that has not found this client yet drops its answer after 0.1 s
        end, tries = time.monotonic() + PATIENCE, 0
        while time.monotonic() < end:
            tries += 1
            future = client.call_async(request)
            self.executor.spin_until_future_complete(future, timeout_sec=3.0 * tries)
            if future.done():
                return future.result()
            if kind is ChangeState and self.state() == self._goal:
                return ChangeState.Response(success=True)
        raise AssertionError(f'no answer from {name}')

    def state(self) -> str:
        return self.call('get_state', GetState, GetState.Request()).current_state.label

    def transition(self, label: str) -> bool:
        """Ask for a transition and return whether it was made."""
        state = f'{self.state()}_' if label == 'shutdown' else ''
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f'TRANSITION_{state}{label}'.upper())
        self._goal = TRANSITIONS[label]
        return self.call('change_state', ChangeState, request).success

    def reach(self, wanted: str) -> None:
        """Wait until the node is in a lifecycle state."""
        self.until(lambda: self.state() == wanted, f'the state {wanted}')

    def start(self, **values: Any) -> None:
        """Set parameters of an unconfigured node, and configure and activate it."""
        if values:
            answer = self.set_parameters(**values)
            assert answer.successful, answer.reason
        assert self.transition('configure') and self.transition('activate')

    def unconfigure(self) -> None:
        for transition, state in (('deactivate', 'active'), ('cleanup', 'inactive')):
            if self.state() == state:
                assert self.transition(transition)

    def set_parameters(self, **values: Any) -> SetParametersResult:
        """Set parameters together; '__' in a name stands for '.'."""
        request = SetParametersAtomically.Request()
        request.parameters = [
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        return self.call('set_parameters_atomically', SetParametersAtomically, request).result

    def get(self, *names: str) -> list[Any]:
        answer = self.call(
            'get_parameters', GetParameters, GetParameters.Request(names=list(names))
        )
        return [parameter_value_to_python(value) for value in answer.values]


#: Types of the outputs that are neither an Image nor compressed.
KINDS: dict[str, Any] = {
    'status': DiagnosticArray, 'camera_info': CameraInfo, 'illumination': Float32,
}  # fmt: skip


# as scripts that use this file call it
Client.set = Client.set_parameters


class Camera:
    """A camera of the test's, and what the node answers on its outputs."""

    def __init__(
        self, client: Client, name: str = 'camera', *outputs: str, kind: Any = Image,
        topic: str = '', reliable: bool = True, latched: bool = False,
    ) -> None:  # fmt: skip
        self.client, self.out = client, f'{name}/nightseg'
        topic = topic or f'{name}/image_raw{"/compressed" * (kind is CompressedImage)}'
        self.publisher = client.publisher(topic, kind, reliable=reliable, latched=latched)
        self.outputs = outputs or ('labels',)
        self.listen(*self.outputs)

    def listen(self, *outputs: str) -> None:
        for output in outputs:
            default = CompressedImage if output.endswith('/compressed') else Image
            self.client.listen(f'{self.out}/{output}', KINDS.get(output, default))

    def connect(self) -> Camera:
        """Wait until the node has found it, and it the node."""
        self.client.connect(self.publisher)
        self.client.heard(*(f'{self.out}/{output}' for output in self.outputs))
        return self

    def got(self, output: str = 'labels') -> list[Any]:
        return self.client.got[f'{self.out}/{output}']

    def frame(self, image: Pixels | None = None, at: int | None = None, **more: Any) -> Image:
        """Return a message under the client's next stamp."""
        at = next(self.client.stamps) if at is None else at
        return image_message(picture(60, 80) if image is None else image, at, **more)

    def send(self, *given: Any, **more: Any) -> Image:
        message = self.frame(*given, **more)
        self.publisher.publish(message)
        return message

    def serve(self, image: Any = None, *outputs: str, **more: Any) -> Any:
        """Send a frame or message until all ``outputs`` came; return the one, or a list."""
        message = (
            self.frame(image, **more) if image is None or isinstance(image, np.ndarray) else image
        )
        topics = [f'{self.out}/{output}' for output in outputs or self.outputs]
        return self.client.exchange(self.publisher, message, *topics)

    def counters(self) -> dict[str, int]:
        """Return the integers of its next status."""
        name = self.out.split('/')[-2]
        self.client.got['/diagnostics'].clear()
        values = self.client.until(lambda: self.client.status(name), 'a status')[2]
        return {key: int(value) for key, value in values.items() if value.isdigit()}


#: What a field of each type may hold at worst.
EXTREMES: dict[str, tuple[Any, ...]] = {
    'boolean': (False, True), 'uint8': (0, 255), 'int32': (-(2**31), 2**31 - 1),
    'uint32': (0, 1, 2**32 - 1), 'double': (math.nan, math.inf, -1.0, 1e308, 5e-324),
    'string': ('', '/', '[' * 100_000),
}  # fmt: skip


def mutants(message: Any, stamps: Iterator[int]) -> Iterator[Any]:
    """
    Yield the message again and again, each time with another field that holds the worst.

    Unless it is its stamp, that is a new one: doubled ones would be dropped unread.
    """
    at = stamp_ns(message) if hasattr(message, 'header') else 0
    for _ in _mutated(message):
        if hasattr(message, 'header') and stamp_ns(message) == at:
            at = next(stamps)
            stamp(message, at, message.header.frame_id)
        yield message


def _mutated(message: Any) -> Iterator[None]:
    for name, kind in message.get_fields_and_field_types().items():
        value, others = getattr(message, name), list(EXTREMES.get(kind, ()))
        if kind.startswith('sequence'):
            others += [value[:0], value[: len(value) // 2]]
        if 'double' in kind and not isinstance(value, float):
            others += [[extreme] * len(value) for extreme in EXTREMES['double']]
        for part in value if isinstance(value, list) else [value]:
            if hasattr(part, 'get_fields_and_field_types'):
                yield from _mutated(part)
        for other in others:
            setattr(message, name, other)
            yield
        if others:
            setattr(message, name, value)


def picture(height: int = 120, width: int = 160, seed: int = 0, *, night: bool = False) -> Pixels:
    """Return RGB uint8 [H, W, 3]: patches of colour; by night only the upper third is lit."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 256, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (width, height)), np.uint8)
    if night:
        image //= 40
        image[: height // 3] = 200
    return image


def image_message(
    pixels: Pixels,
    stamp_ns: int,
    *,
    encoding: str = 'rgb8',
    frame_id: str = 'optical',
    padding: int = 0,
) -> Image:
    """Return the message of uint8 [H, W] or [H, W, C], each row padded by some bytes."""
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1]
    )
    message.data.frombytes(np.ascontiguousarray(rows).tobytes())
    stamp(message, stamp_ns, frame_id)
    return message


def stamp(message: Any, stamp_ns: int, frame_id: str = 'optical') -> Any:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.header.frame_id = frame_id
    return message


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def pixels_of(message: Image) -> Pixels:
    """Return the pixels of a mono8 or rgb8 message."""
    channels = {'mono8': (), 'rgb8': (3,)}[message.encoding]
    shape = (message.height, message.width, *channels)
    assert message.step * message.height == np.prod(shape)
    return np.frombuffer(message.data, np.uint8).reshape(shape)


def values_of(array: DiagnosticArray) -> dict[str, str]:
    """Return the values of a status message."""
    (status,) = array.status
    return {item.key: item.value for item in status.values}


def _qos(reliable: bool, depth: int) -> QoSProfile:
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=depth, reliability=reliability)


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
