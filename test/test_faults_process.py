# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks that are slow, hang, die, give no numbers or find no memory, in the real process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from ros_harness import Camera, Client, FaultyNode, picture, running, stamp_ns

pytestmark = [pytest.mark.ros, pytest.mark.slow]

KILLS = 'SIGKILL, and a library that keeps the interpreter, let no process clean up'
HERE = Path(__file__).parent


@pytest.fixture(scope='module')
def two(parameters):
    return {**parameters, 'cameras': ['front', 'rear']}


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """Return the file that says what goes wrong; nothing does yet."""
    path = tmp_path / 'fault'
    path.write_text('')
    monkeypatch.setenv('NIGHTSEG_FAULT', str(path))
    return path


class Cameras:
    """Two cameras that send a frame each, at once."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.both = [Camera(client, 'front'), Camera(client, 'rear')]

    def connect(self) -> None:
        for camera in self.both:
            camera.connect()
        self.client.until(self.served, 'masks')

    def send(self) -> int:
        at = next(self.client.stamps)
        for camera in self.both:
            camera.send(picture(), at)
        return at

    def until_told(self, name: str, level: str, words: str) -> float:
        return self.client.told(self.send, name, words, level)

    def served(self) -> bool:
        """Send frames and tell whether masks of both come."""
        self.client.got.clear()
        self.send()
        self.client.spin(0.5)
        return all(camera.got() for camera in self.both)


@pytest.fixture
def cameras(client):
    return Cameras(client)


def test_networks_that_are_slow_or_find_no_memory_or_give_no_numbers_and_a_worker_that_dies(
    client, cameras, two, fault, tmp_path
):
    with running(tmp_path / 'log', two, kind=FaultyNode) as node:
        cameras.connect()

        cameras.both[0].listen('status')
        fault.write_text('slow 1.6')
        assert cameras.until_told('node', 'WARN', 'a batch of frames took') < 20
        cameras.until_told('node', 'ERROR', 'the networks have been busy with one batch for 1.')

        def told() -> bool:
            found = [array.status[0] for array in cameras.both[0].got('status')]
            return any(one.level == b'\x01' and 'slow: ' in one.message for one in found)

        client.feed(cameras.send, told, 'a slow status')
        fault.write_text('')
        client.diagnosed('node', 'OK', 'active')

        # never a mask that looks as if it were one
        fault.write_text('nan')
        cameras.until_told('front', 'ERROR', 'the network gave no numbers (NaN)')
        client.got.clear()
        cameras.send()
        client.spin(1.0)
        assert not cameras.both[0].got()
        fault.write_text('')
        client.until(cameras.served, 'masks again')

        # two frames at a time are too many, but each for itself is not
        fault.write_text('memory 1')

        def crowded() -> bool:
            cameras.send()
            return cameras.served() and 'batches have at most 1 frames' in node.text

        client.until(crowded, 'smaller batches')
        assert client.status('node')[2]['device'] == 'gpu'
        # not allowed to go to the CPU, it says what it lacks
        assert client.set_parameters(cpu_fallback=False).successful
        fault.write_text('memory 0')
        cameras.until_told('front', 'ERROR', 'no memory for 1 images')
        cameras.until_told('node', 'WARN', 'gpu is out of memory, and cpu_fallback is off')
        assert client.set_parameters(cpu_fallback=True).successful
        client.until(cameras.served, 'masks from the CPU')
        words = 'gpu is out of memory: the networks run on the CPU now'
        assert client.diagnosed('node', 'WARN', words)['device'] == 'cpu'
        assert words in node.text

        fault.write_text('die')
        cameras.send()
        client.diagnosed('node', 'ERROR', 'the worker thread has ended by an error')
        assert node.process.wait(20) == 1


@pytest.mark.parametrize('kind', ['hang', 'seize'])
def test_a_hung_network_ends_the_process_with_its_stacks_and_an_error(
    client, cameras, two, fault, tmp_path, kind
):
    # where no thread runs any more, the guard may have been told the limit of the load last
    limits = {'watchdog_s': 3.0, 'watchdog_load_s': 40.0}
    with running(tmp_path / 'log', {**two, **limits}, kind=FaultyNode) as node:
        cameras.connect()
        segments = node.segments()
        assert segments
        fault.write_text(kind)
        at = cameras.send()
        if kind == 'hang':
            client.diagnosed('node', 'ERROR', 'busy with one batch for 1.')
            assert 'exiting with code 1' in client.until(
                lambda: 'exiting with' in node.text and node.text, 'the last line'
            )
        assert node.process.wait(60) == 1
        # of the stacks, another process writes the rest
        places = ('faulty_node.py', 'nightseg_ros/node/worker.py')
        client.until(lambda: all(place in node.text for place in places), 'the stacks')
        client.spin(0.2)
        assert at not in [stamp_ns(labels) for labels in cameras.both[0].got()]
        # where the interpreter is kept, nothing of Python can clean up
        assert kind == 'seize' or not [path for path in segments if path.exists()]


def test_a_hung_worker_refuses_to_deactivate_and_the_node_can_be_configured_again(
    client, cameras, two, fault, tmp_path
):
    with running(tmp_path / 'log', two, kind=FaultyNode) as node:
        cameras.connect()
        fault.write_text('hang')
        cameras.send()
        client.diagnosed('node', 'ERROR', 'busy with one batch for')
        assert not client.transition('deactivate')
        assert 'the worker has not ended within 10 s' in node.text
        client.reach('unconfigured')
        fault.write_text('')
        client.start()
        client.until(cameras.served, 'masks again')


class Closed(FaultyNode):
    """The same without a standard error."""

    command = (
        '-c',
        'import os, sys\n'
        'os.close(2)\n'
        f'os.execv(sys.executable, [sys.executable, {FaultyNode.command[0]!r}, *sys.argv[1:]])',
    )


@pytest.mark.parametrize('kind', [FaultyNode, Closed])
def test_a_load_that_hangs_is_told_and_ends_the_process_also_one_without_stderr(
    client, two, fault, tmp_path, kind
):
    fault.write_text('load')
    limits = {'watchdog_s': 1.0, 'watchdog_load_s': 6.0}
    with running(tmp_path / 'log', {**two, **limits}, kind=kind) as node:
        values = client.diagnosed('node', 'WARN', 'configure has not ended for')
        assert values['state'] == 'configuring'
        client.diagnosed('node', 'ERROR', 'configure has not ended for')
        assert node.process.wait(60) == 1
        assert ('on_configure' in node.text) == (kind is FaultyNode)


class Unread(FaultyNode):
    """The same with an output that nobody reads."""

    text = ''


@pytest.mark.parametrize('end', ['hang', 'seize', 'SIGTERM'])
def test_a_log_whose_reader_has_stopped_holds_up_neither_masks_nor_the_end(
    cameras, two, fault, tmp_path, end
):
    os.mkfifo(tmp_path / 'log')
    reader = os.open(tmp_path / 'log', os.O_RDWR)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    limits = {'watchdog_s': 3.0, 'watchdog_load_s': 40.0}
    debug = ('--log-level', 'debug')
    with running(tmp_path / 'log', {**two, **limits}, *debug, kind=Unread) as node:
        cameras.connect()
        if end == 'SIGTERM':
            node.ends(signal.SIGTERM)
        else:
            fault.write_text(end)
            cameras.send()
            assert node.process.wait(60) == 1
    assert len(os.read(reader, 1 << 16)) > 3000, 'it was never full'
    os.close(reader)


def test_stops_and_kills_of_process_and_guard_end_no_healthy_node_and_its_successor_serves(
    client, cameras, two, fault, tmp_path
):
    def guards() -> list[int]:
        # each thread has those that it started
        found = [path.read_text() for path in threads.glob('*/children')]
        return [int(pid) for pid in ' '.join(found).split()]

    given = {**two, 'watchdog_s': 1.0}
    with running(tmp_path / 'log', given, kind=FaultyNode) as node:
        threads = Path(f'/proc/{node.process.pid}/task')
        cameras.connect()
        # 1 s and the guard's 5 s beyond it
        node.process.send_signal(signal.SIGSTOP)
        time.sleep(8.0)
        node.process.send_signal(signal.SIGCONT)
        client.until(cameras.served, 'masks again')
        # nor does a guard that was killed; another one takes its place
        (guard,) = guards()
        # without a free descriptor it cannot be started at once
        limits = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(guard, signal.SIGKILL)
        time.sleep(2.0)
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, limits)
        client.until(lambda: guard not in guards() and guards(), 'another guard')
        client.until(cameras.served, 'masks again')
        assert 'Timeout' not in node.text
        # what it leaves in shared memory must not hinder the next one
        node.process.kill()
        assert node.process.wait(20) == -signal.SIGKILL
    with running(tmp_path / 'log2', two, kind=FaultyNode) as node:
        threads = Path(f'/proc/{node.process.pid}/task')
        client.until(cameras.served, 'masks of its successor')
        (guard,) = guards()
        assert node.stop() == 0
        assert not Path(f'/proc/{guard}').exists()


def test_two_nodes_of_one_name_are_told(client, two, tmp_path):
    parameters = {**two, 'autostart': False}
    with running(tmp_path / 'log', parameters):
        client.diagnosed('node', 'OK', 'unconfigured')
        with running(tmp_path / 'log2', parameters):
            client.diagnosed('node', 'WARN', 'another node has this name as well')
        client.diagnosed('node', 'OK', 'unconfigured')


#: Docker's default size of /dev/shm, too small for the segment of the shipped DDS profile.
SMALL_SHM = 'mount -t tmpfs -o size=64m tmpfs /dev/shm'


def test_with_64_mb_of_shared_memory_images_take_the_network_and_stay_themselves():
    unshare = [shutil.which('unshare') or '', '-m', 'sh', '-c']
    if not unshare[0] or subprocess.run([*unshare, SMALL_SHM], capture_output=True).returncode:
        pytest.skip('only root may mount a small /dev/shm for a process and its children')
    done = subprocess.run(
        [*unshare, f'{SMALL_SHM} && exec "$@"', 'sh', sys.executable, '-m', 'pytest', '-q', '-s',
         '-p', 'no:cacheprovider', str(HERE / 'test_marker.py'), '-k', 'under_load'],
        capture_output=True, text=True, check=False, cwd=HERE.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert 'Failed to create segment' in done.stdout + done.stderr, 'it was large enough'
