# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A long drive through real processes, and whether anything grew, got lost or was left behind.

``python bench/soak.py --minutes 60 --out out/soak`` plays a rendered drive in a loop as two
cameras into night_perception, and sweeps of a LiDAR into semantic_cloud beside it. Again and again
a camera falls silent or is started anew, the nodes are deactivated, configured anew or stopped as
by a suspend, another route is forced, or nobody reads the log. Memory, descriptors, threads, CPU
time, latency and what got lost are sampled all the while. It writes soak.csv and soak.json, and
exits with 1 where something grew beyond its limit, was not accounted for, or stayed in /dev/shm,
or where a process spoke to another machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import csv
import fcntl
import itertools
import json
import os
from pathlib import Path
import signal
import statistics
import sys
import termios
import time
from typing import Any

from nightseg_ros.cli.processes import Child, ros_arguments
from nightseg_ros.node.diagnostics import CLOUD_DROPS, FRAME_DROPS
from nightseg_ros.node.messages import stamped_header
from nightseg_ros.shared_memory import held_locks
from nightseg_ros.simulation.drive import Drive, write_drive
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from watch import add_weights, growth, held, Limit, Observer, resources, verdict

CAMERAS = ('front', 'rear')
SOURCES = (*CAMERAS, 'lidar')
NODES = {'night_perception': 'nightseg_ros.node.main',
         'semantic_cloud': 'nightseg_ros.node.semantic_cloud'}  # fmt: skip
#: Seconds after an event in which frames may be lost: who publishes has to be found first.
SETTLE = 3.0
#: Seconds for the mask of a frame, at most.
ANSWER = 2.0
#: Width and height, frames a second and seconds of the drive; seconds between two samples.
SIZE, FPS, LOOP, SAMPLE = (320, 180), 4.0, 45.0, 2.0
#: Largest share of frames or clouds that may be lost.
LOST = 0.02
#: ``watchdog_s`` of night_perception; a suspend is longer than that and the guard's 5 s.
WATCHDOG_S, SUSPEND_S = 5.0, 11.0
EVENTS = ('configure', 'silence', 'restart', 'deactivate', 'route', 'suspend', 'unread')
#: Every way in which a message that was received may end.
ENDS = {'served', *(f'dropped.{reason}' for reason in FRAME_DROPS | CLOUD_DROPS)}


class LoopPlayer(Child):
    """Plays a bag into ``<camera>/image_raw`` for ever, and tells which frame was sent when."""

    def __init__(self, camera: str, bag: Path) -> None:
        """Start it; its files lie beside the bag."""
        path = bag.with_name(f'{camera}.jsonl')
        self._stamps = path.open('w+', encoding='utf-8')
        self._rest = ''
        arguments = [
            str(bag), '--loop', '--remap-to', f'{camera}/image_raw', '--log', str(path),
        ]  # fmt: skip
        super().__init__(
            camera, 'nightseg_ros.node.replay', arguments, log=path.with_suffix('.log'),
            environ=os.environ,
        )  # fmt: skip

    def sent(self) -> list[tuple[int, float]]:
        """Return stamp (ns) and steady time (s) of what was sent since the last call."""
        *lines, self._rest = (self._rest + self._stamps.read()).split('\n')
        events = map(json.loads, lines)
        return [(event['stamp'], event['sent'] / 1e9) for event in events]


class Lidar:
    """Sends a sweep of 2,000 points for each new mask of the front camera, and calibrations."""

    name = 'lidar'

    def __init__(self, observer: Observer) -> None:
        """Look for masks ten times a second."""
        self.silent = False
        self._observer, self._last, self._sent = observer, 0, list[tuple[int, float]]()
        points = np.random.default_rng(0).uniform((-20, -3, 2), (20, 3, 40), (2000, 3))
        fields = [
            PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate('xyz')
        ]
        self._sweep = PointCloud2(
            height=1, width=2000, fields=fields, point_step=12, row_step=24_000,
            data=points.astype(np.float32).tobytes(),
        )  # fmt: skip
        width, height = SIZE
        self._lens = CameraInfo(height=height, width=width, distortion_model='plumb_bob')
        focal = 0.625 * width
        self._lens.k[:] = [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1]
        self._lens.d = [-0.3, 0.1, 0.001, 0, 0]
        node = observer.node
        self._points = node.create_publisher(PointCloud2, 'lidar/points', 5)
        self._infos = [node.create_publisher(CameraInfo, f'{c}/camera_info', 5) for c in CAMERAS]
        node.create_timer(0.1, self._turn)

    def sent(self) -> list[tuple[int, float]]:
        """Return stamp (ns) and steady time (s) of what was sent since the last call."""
        found, self._sent = self._sent, []
        return found

    def _turn(self) -> None:
        stamp_ns = self._observer.latest.get('front', 0)
        if self.silent or stamp_ns == self._last:
            return
        self._last = stamp_ns
        for info in self._infos:
            info.publish(self._lens)
        # no transform is asked for where all lies in the frame of the pictures
        self._sweep.header = stamped_header('camera', stamp_ns)
        self._sent.append((stamp_ns, time.monotonic()))
        self._points.publish(self._sweep)


class LoggedNode(Child):
    """A node that logs into a pipe of one page."""

    def __init__(self, name: str, parameters: dict[str, str], work: Path) -> None:
        """Start it; what it writes goes to ``text`` whenever it is read."""
        self.text = ''
        pipe = work / f'{name}.log'
        os.mkfifo(pipe)
        self._reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, 4096)
        super().__init__(
            name, NODES[name], ros_arguments(parameters), log=pipe, environ=os.environ
        )

    def waiting(self) -> int:
        """Return how many bytes nobody has read."""
        answer = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def read(self) -> None:
        """Read what it has logged."""
        if self.waiting():
            self.text += os.read(self._reader, 1 << 16).decode(errors='replace')

    def tail(self, lines: int = 15) -> str:
        """Return the end of its output."""
        self.read()
        return '\n'.join(f'  | {line}' for line in self.text.splitlines()[-lines:])


class Soak(Observer):
    """One run: events in turn, between them samples."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Render the drive and start the nodes."""
        super().__init__({**dict.fromkeys(CAMERAS, Image), 'lidar': PointCloud2}, list(NODES))
        self.options = options
        # what the first minutes cost once is not held against it, up to a quarter of an hour
        self.warm_up = min(900.0, 36 * options.minutes)
        # every event has to happen before that
        self.every = min(40.0, 60 * options.minutes / 25)
        self.rows: list[dict[str, Any]] = []
        self.sent, self.lost = dict.fromkeys(SOURCES, 0), dict.fromkeys(SOURCES, 0)
        self.faults: list[str] = []
        """What was not accounted for, or spoke to another machine."""
        self.events: list[str] = []
        self.segments: set[Path] = set()
        self._bag = self.folder / 'drive'
        write_drive(self._bag, Drive(size=SIZE, fps=FPS, seconds=LOOP), processes=1)
        cameras = {'cameras': json.dumps(CAMERAS)}
        parameters = {
            'night_perception': {
                **cameras, 'weights.day': options.day, 'weights.night': options.night,
                'threads': '1', 'backend': options.backend, 'watchdog_s': str(WATCHDOG_S),
            },
            'semantic_cloud': {**cameras, 'use_tf': 'false'},
        }  # fmt: skip
        self.nodes = [self.add(LoggedNode(name, parameters[name], self.folder)) for name in NODES]
        self._players: list[LoopPlayer] = []
        self._lidar = Lidar(self)
        self._begun = time.monotonic()

    def run(self) -> None:
        """Go through the events until the time is over."""
        for camera in CAMERAS:
            self._players.append(self.add(LoopPlayer(camera, self._bag)))
            # the cameras must not see the same light at the same time
            self._spin(self.every / 3)
        self._until_served()
        # a machine's first start compiles the networks; later ones hold the cache's files open
        self.configure()
        self._until_served()
        # loading is no part of it
        self._begun = time.monotonic()
        end = self._begun + 60 * self.options.minutes
        for name in itertools.cycle(EVENTS):
            # loading leaves holes in the heap, 1 to 7 MB by chance (bench/lifecycle_cycles.py
            # repeats it until a leak would stand out), and what follows costs its first memory
            # anew: every other event comes once more before anything is compared
            if name == 'configure' and time.monotonic() - self._begun > self.warm_up / 2:
                continue
            self._steady(min(self.every, end - time.monotonic()))
            if time.monotonic() >= end:
                break
            self.events.append(name)
            getattr(self, name)()
            self._until_served()
        for node in self.nodes:
            node.stop(20.0)

    def _spin(self, seconds: float) -> None:
        """Listen, and read the log."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for node in self.nodes:
                node.read()
            self.spin(min(left, 0.5))

    def _until_served(self) -> None:
        """Wait for new masks of both cameras and clouds."""
        self.arrivals.clear()
        self.until(
            lambda: {source for source, *_ in self.arrivals} == set(SOURCES),
            'masks of both cameras and clouds',
        )

    def _until_silent(self, camera: str, silent: bool = True) -> None:
        """Wait until the node says ERROR of a camera, or no longer."""
        what = f'{camera} {"silent" if silent else "again"}'
        self.until(lambda: (self.levels.get(camera) == 2) == silent, what)

    # -- events -------------------------------------------------------------------------------

    def silence(self) -> None:
        """Let the front camera fall silent and come back with all that it held back."""
        self._until_silent('front', False)
        self._players[0].signal(signal.SIGSTOP)
        try:
            self._until_silent('front')
        finally:
            self._players[0].signal(signal.SIGCONT)
        self._until_silent('front', False)

    def restart(self) -> None:
        """End the rear camera's process and start another one."""
        self.end(self._players[1])
        self._spin(1.0)
        self._players[1] = self.add(LoopPlayer('rear', self._bag))
        self._until_silent('rear')
        self._until_silent('rear', False)

    def deactivate(self) -> None:
        """Deactivate and activate the nodes."""
        self.transition('deactivate', 'activate')

    def configure(self) -> None:
        """Free everything and load it anew."""
        self.transition('deactivate', 'cleanup', 'configure', 'activate')

    def route(self) -> None:
        """Take one network for every light, then the other, then let the light decide again."""
        for route in ('night', 'day', 'auto'):
            self.set_parameter('route', route)
            self._spin(self.every / 10)

    def suspend(self) -> None:
        """Stop both nodes for longer than the watchdog allows a batch, and let them go on."""
        for node in self.nodes:
            node.signal(signal.SIGSTOP)
        self._spin(SUSPEND_S)
        for node in self.nodes:
            node.signal(signal.SIGCONT)

    def unread(self) -> None:
        """Leave the log unread until the pipe has no room, and go on without a reader."""
        routes = itertools.cycle(('night', 'day'))
        fullest, same = -1, 0
        while same < 8:
            self.set_parameter('route', next(routes))
            self.spin(0.3)
            waiting = self.nodes[0].waiting()
            same = same + 1 if waiting == fullest and waiting > 3000 else 0
            fullest = waiting
        self.set_parameter('route', 'auto')
        self._until_served()

    # -- samples ------------------------------------------------------------------------------

    def _steady(self, seconds: float) -> None:
        """Settle, then sample and count until ``seconds`` have passed."""
        self._spin(SETTLE)
        for sender in (*self._players, self._lidar):
            sender.sent()
        self.arrivals.clear()
        waiting: dict[tuple[str, int], float] = {}
        end = time.monotonic() + seconds - SETTLE
        event = self.events[-1] if self.events else 'start'
        before = resources(self.nodes[0].pid)
        while time.monotonic() < end:
            self._spin(SAMPLE)
            latencies = self._match(waiting)
            now, cloud = (resources(node.pid) for node in self.nodes)
            frames, used = len(latencies), now['cpu_s'] - before['cpu_s']
            before = now
            self.rows.append({
                'seconds': round(time.monotonic() - self._begun, 2), 'event': event,
                **now, **{f'cloud_{name}': value for name, value in cloud.items()},
                'cpu_ms_per_frame': round(1e3 * used / frames, 2) if frames else 'nan',
                'latency_ms': round(statistics.median(latencies), 2) if frames else 'nan',
                'masks': frames, 'level': max(self.levels.values(), default=0),
            })  # fmt: skip
            event = ''
            self._inspect()
        self._balance(waiting)

    def _balance(self, waiting: dict[tuple[str, int], float]) -> None:
        """Let all senders rest until everything is answered, and count what is missing."""
        for player in self._players:
            player.signal(signal.SIGSTOP)
        self._spin(ANSWER / 4)
        self._lidar.silent = True
        self._spin(ANSWER)
        self._match(waiting)
        for source, _ in waiting:
            self.lost[source] += 1
        try:
            self.until(lambda: not self._unbalanced(), 'the end of all frames', 30.0)
        except RuntimeError:
            self.faults += self._unbalanced()
        self._lidar.silent = False
        for player in self._players:
            player.signal(signal.SIGCONT)

    def _unbalanced(self) -> list[str]:
        """Return the sources of which not every received message has ended."""
        found = []
        for source in SOURCES:
            values = self.values[source].items()
            counts = {key: int(value) for key, value in values if key in ENDS}
            received = int(self.values[source]['received'])
            if sum(counts.values()) != received:
                found.append(f'{source}: {received} received, {counts}')
        return found

    def _match(self, waiting: dict[tuple[str, int], float]) -> list[float]:
        """
        Give each answer to what was sent, and return the latencies (ms) of the masks.

        ``waiting`` holds the steady time at which each frame or cloud without an answer was sent.
        """
        for sender in (*self._players, self._lidar):
            new = {(sender.name, stamp): sent for stamp, sent in sender.sent()}
            waiting |= new
            self.sent[sender.name] += len(new)
        latencies = []
        for source, stamp, arrived in self.arrivals:
            sent = waiting.pop((source, stamp), None)
            if sent is not None and source != 'lidar':
                latencies.append((arrived - sent) * 1e3)
        self.arrivals.clear()
        return latencies

    def _inspect(self) -> None:
        """Note the segments in /dev/shm, and connections to other machines."""
        for child in self.children:
            locks = [path.with_name(path.name[:-3]) for path, _ in held_locks(child.pid)]
            # others may have a port as well
            self.segments |= {path for path in locks if '_port' not in path.name}
            self.faults += [f'{child.name} speaks to {remote}' for remote in remotes(child.pid)]


def remotes(pid: int) -> Iterator[str]:
    """Yield the kernel's words for each socket of a process that listens for TCP or has a peer."""
    own = set()
    for link in Path(f'/proc/{pid}/fd').iterdir():
        try:
            own.add(os.readlink(link))
        except FileNotFoundError:
            continue
    for table in ('tcp', 'tcp6', 'udp', 'udp6'):
        for line in Path(f'/proc/{pid}/net/{table}').read_text().splitlines()[1:]:
            words = line.split()
            # DDS sends without connections
            peer = words[2].rpartition(':')[0].strip('0')
            if f'socket:[{words[9]}]' in own and (peer or table.startswith('tcp')):
                yield f'{table} {words[1]} {words[2]}'


def judged(soak: Soak, growing: float, folder: Path) -> bool:
    """Print what grew, got lost or was left behind, and write soak.json."""
    # times hear of other work on the machine: the fastest tenth of a quarter is compared
    limits = [
        *held(growing), *held(growing, 'cloud_'),
        Limit('cpu_ms_per_frame', 0.1, floor=5.0, quantile=0.1),
        Limit('latency_ms', 0.25, floor=10.0, quantile=0.1),
    ]  # fmt: skip
    checks = [growth(soak.rows, 'seconds', soak.warm_up, limit) for limit in limits]
    for source in SOURCES:
        sent, lost = soak.sent[source], soak.lost[source]
        checks.append((sent > 0 and lost <= LOST * sent, f'lost by {source}: {lost} of {sent}'))
    left = sorted(path.name for path in soak.segments if path.exists())
    for what, items in (('not accounted for', soak.faults), ('left in /dev/shm', left)):
        checks.append((not items, f'{what}: {"; ".join(items[:5]) or "nothing"}'))
    passed = verdict(checks)
    content = {
        'minutes': soak.options.minutes, 'events': soak.events, 'sent': soak.sent,
        'lost': soak.lost, 'checks': [text for _, text in checks], 'passed': passed,
    }  # fmt: skip
    (folder / 'soak.json').write_text(json.dumps(content, indent=2) + '\n')
    return passed


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--out', type=Path, default=Path('out/soak'))
    add_weights(parser)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with Soak(options) as soak:
        try:
            soak.run()
        except (RuntimeError, OSError) as error:
            tails = [f'{node.name} ({node.code}):\n{node.tail()}' for node in soak.nodes]
            soak.faults.append('\n'.join([f'after {soak.events[-1:]}: {error}', *tails]))
        finally:
            with (options.out / 'soak.csv').open('w', newline='', encoding='utf-8') as file:
                writer = csv.DictWriter(file, list(soak.rows[0]) if soak.rows else ())
                writer.writeheader()
                writer.writerows(soak.rows)
    return 0 if judged(soak, options.growth, options.out) else 1


if __name__ == '__main__':
    sys.exit(main())
