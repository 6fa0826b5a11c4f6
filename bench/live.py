# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The node as real ROS 2 processes beside peers: latencies, rates, memory, and ratios.

``python bench/live.py [--rounds N] [--only SESSION …] [--out out/live]`` writes live.json.
This process is camera and planner in one, so that one clock times both ends. Contenders
take turns, in an order that rotates: ratios are taken round by round and do not depend on how
fast the machine is. A goal is met or missed where the 10th to 90th percentile of the rounds lies
on one side of it, else not resolved; on a machine that has other work none is judged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from nightseg_ros.cli.machine import machine, percentiles, versions
from nightseg_ros.cli.processes import ros_arguments
from nightseg_ros.node.messages import ImageMessage, stamped_header
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.simulation.drive import render
from nightseg_ros.simulation.street import Street
import numpy as np
from peers import PEERS
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from watch import Graph, resources

HD, NHD, TINY = (1280, 720), (640, 360), (160, 120)
WEIGHTS = ('day', 'night', 'translator')
LABELS = ('labels', 'status')
#: The stages of a frame within the node; 'total' is from its receipt to its labels.
PARTS = (
    'receive', 'wait', 'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'publish',
    'total',
)  # fmt: skip
#: Seconds for the nodes to load (the first run exports), and for each later answer.
LOADING_S, ANSWER_S = 300.0, 30.0
#: Load a core from which other work falsifies a figure.
BUSY = 0.5
#: Name, values by round, goal and meaning.
Figure = tuple[str, Sequence[float], str, str]
#: Cameras that are sent a frame each, by the name of whose turn it is; none: the network runs
#: alone, in this process.
Contenders = Mapping[str, Sequence[str]]
OURS: Contenders = {'ours': ('camera',)}
BESIDE_ALONE: Contenders = {**OURS, 'alone': ()}


@dataclass
class Phase:
    """What was seen while the same was asked again and again."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each turn, by contender."""
    use: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each process 'cpu', its CPU seconds a second, and 'resident_mb' at the end."""
    seconds: float = 0.0

    def answered(self) -> list[dict[str, Any]]:
        """Return the frames whose labels arrived."""
        return [frame for frame in self.frames if 'arrived' in frame]


class Probe(Graph):
    """Publishes frames of one size, and keeps when the labels of each came back."""

    def __init__(
        self, size: tuple[int, int], cameras: Sequence[str], seen: dict[str, Any]
    ) -> None:
        """Create a publisher a camera."""
        super().__init__()
        street = Street(1, 'demo')
        scenes = [render(street, 9.0 * n, 'night', seed=n).image for n in range(3)]
        self.messages = [
            ImageMessage('rgb8').fill(Header(), np.asarray(cv2.resize(scene, size), np.uint8))
            for scene in scenes
        ]
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publishers = {
            camera: self.node.create_publisher(Image, f'{camera}/image_raw', qos)
            for camera in cameras
        }
        self.subscriptions: list[Any] = []
        # of a frame: camera, stamp, sent and arrived (ns of the steady clock), ms by stage
        self.waiting: dict[tuple[str, int], dict[str, Any]] = {}
        self.kept: dict[tuple[str, int], dict[str, Any]] = {}
        self.newest: dict[str, int] = {}
        self.count = self.last_ns = 0
        self.alone: Callable[[], Any] = print
        self.seen = seen
        """The ``summary`` of each phase."""

    def first_answers(self) -> int:
        """Send until every camera has answered; return when the first did (ns)."""
        self._listen(self.publishers, ('labels',))
        end, missing, first = time.monotonic() + LOADING_S, set(self.publishers), 0
        while missing:
            if time.monotonic() > end:
                raise RuntimeError(f'no labels of {sorted(missing)} within {LOADING_S:g} s')
            for camera in sorted(missing):
                if self.publishers[camera].get_subscription_count():
                    self._send(camera)
            self.spin(0.1)
            missing -= {camera for camera, _ in self.kept}
            first = first or min((sent['arrived'] for sent in self.kept.values()), default=0)
        self.spin(0.5)
        return first

    def turns(
        self, name: str, contenders: Contenders, rounds: int, *, frames: int = 1,
        window: int = 1, topics: Sequence[str] = LABELS,
    ) -> Phase:  # fmt: skip
        """
        Let contenders take turns, in which ``frames`` of each of their cameras are answered.

        ``window`` of them may be on their way at once.
        """
        cameras = {camera for cameras in contenders.values() for camera in cameras}
        with self._measured(name, cameras, topics) as phase:
            for number in range(rounds):
                names = list(contenders)
                # whoever follows the slowest shall not always be the same
                shift = number % len(names)
                turns = {}
                for who in names[shift:] + names[:shift]:
                    started, cpu = time.monotonic(), time.process_time()
                    if contenders[who]:
                        self._turn(contenders[who], frames, window)
                    else:
                        self.alone()
                        turns['alone_cpu'] = time.process_time() - cpu
                    turns[who] = time.monotonic() - started
                    # the contender's threads fall asleep
                    self.spin(0.03)
                phase.rounds.append(turns)
        return phase

    def paced(self, rate: int, seconds: float, cameras: Sequence[str] = ('camera',)) -> Phase:
        """Send frames of each camera at a rate, answered or not; late ones are sent at once."""
        with self._measured(f'{rate}_hz', cameras, LABELS) as phase:
            due = time.monotonic()
            end = due + max(seconds, 1)
            while due < end:
                self.spin(due - time.monotonic())
                for camera in cameras:
                    self._send(camera)
                due += 1 / rate
            self.spin(0.5)
        return phase

    @contextmanager
    def _measured(
        self, name: str, cameras: Iterable[str], topics: Sequence[str]
    ) -> Iterator[Phase]:
        self._listen(sorted(cameras), topics)
        self.spin(0.5)
        self.kept, self.waiting, phase = {}, {}, Phase()
        before, began = self._use(), time.monotonic()
        yield phase
        phase.seconds = time.monotonic() - began
        for who, now in self._use().items():
            phase.use[who] = {
                'cpu': (now['cpu_s'] - before[who]['cpu_s']) / phase.seconds,
                'resident_mb': now['rss_mb'] + now['shm_mb'],
            }
        # a status comes after its labels
        self.spin(0.2)
        phase.frames = [*self.kept.values(), *self.waiting.values()]
        self.seen[name] = summary(phase)

    def _turn(self, cameras: Sequence[str], frames: int, window: int) -> None:
        """Send each camera frames, ``window`` at once, until so many are answered."""
        left = dict.fromkeys(cameras, frames)
        end = time.monotonic() + ANSWER_S
        while any(left.values()) or self.waiting:
            for camera in cameras:
                flying = sum(1 for name, _ in self.waiting if name == camera)
                while left[camera] and flying < window:
                    self._send(camera)
                    left[camera] -= 1
                    flying += 1
                    end = time.monotonic() + ANSWER_S
            if time.monotonic() > end:
                raise RuntimeError(f'no labels for {list(self.waiting)} within {ANSWER_S:g} s')
            self.executor.spin_once(timeout_sec=0.1)
            # a frame that a later one has overtaken is replaced, so that all answer as many
            for key in [k for k in self.waiting if k[1] < self.newest.get(k[0], 0)]:
                self.kept[key] = self.waiting.pop(key)
                left[key[0]] += 1

    def _send(self, camera: str) -> None:
        # two frames never share a stamp
        stamp = self.last_ns = max(time.time_ns(), self.last_ns + 1)
        message = self.messages[self.count % len(self.messages)]
        message.header = stamped_header('camera', stamp)
        self.count += 1
        self.waiting[camera, stamp] = {'camera': camera, 'sent': time.monotonic_ns()}
        self.publishers[camera].publish(message)

    def _listen(self, cameras: Iterable[str], topics: Sequence[str]) -> None:
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
        self.subscriptions = [
            self.node.create_subscription(
                DiagnosticArray if topic == 'status' else Image, f'{camera}/nightseg/{topic}',
                partial(self._receive, camera, topic), 10,
            )
            for camera in cameras
            for topic in topics
        ]  # fmt: skip

    def _receive(self, camera: str, topic: str, message: Any) -> None:
        now, stamp = time.monotonic_ns(), message.header.stamp
        key = camera, stamp.sec * 10**9 + stamp.nanosec
        if topic == 'labels' and key in self.waiting:
            self.kept[key] = {**self.waiting.pop(key), 'arrived': now}
            self.newest[camera] = key[1]
        elif topic == 'status' and key in self.kept:
            pairs = [
                (p.key.partition('latency_ms.')[2], p.value) for p in message.status[0].values
            ]
            self.kept[key]['ms'] = {name: float(value) for name, value in pairs if name}

    def _use(self) -> dict[str, dict[str, float]]:
        return {child.name: resources(child.pid) for child in self.children}


def network_alone(backend: str, night: str, size: tuple[int, int]) -> Callable[[], Any]:
    """Return what runs the node's network once on a picture of that width and height."""
    weights = WeightsConfig(night=night)
    pipeline = Pipeline.load(PipelineConfig(route='night', backend=backend, weights=weights))
    padded = fit(size[1], size[0], pipeline.long_side).padded
    run = partial(pipeline.parts['night'].run, np.zeros((1, *padded, 3), np.uint8))
    run()
    return run


@contextmanager
def serving(
    options: argparse.Namespace, seen: dict[str, Any], *, size: tuple[int, int] = HD,
    cameras: Sequence[str] = ('camera',), peers: Sequence[str] = (), **more: str,
) -> Iterator[Probe]:  # fmt: skip
    """Run a night_perception of some cameras, ``more`` its parameters, and peers beside it."""
    parameters = {
        'route': 'night', 'backend': options.backend, 'cameras': json.dumps(cameras),
        **{f'weights.{name}': getattr(options, name) for name in WEIGHTS}, **more,
    }  # fmt: skip
    with Probe(size, (*cameras, *peers), seen) as probe:
        probe.alone = network_alone(options.backend, options.night, size)
        began = time.monotonic_ns()
        probe.start('ours', 'nightseg_ros.node.main', ros_arguments(parameters))
        for peer in peers:
            probe.start(peer, 'peers', [peer])
        seen['start_to_first_mask_s'] = (probe.first_answers() - began) / 1e9
        yield probe


def summary(phase: Phase) -> dict[str, Any]:
    """Return counts, latencies in ms, turns in ms and the use of one phase."""
    answered = phase.answered()
    # of one camera
    gaps = [
        gap / 1e6 for name in {frame['camera'] for frame in answered}
        for gap in np.diff(sorted(f['arrived'] for f in answered if f['camera'] == name))
    ]  # fmt: skip
    found = [frame['ms'] for frame in answered if 'ms' in frame]
    stages = {stage: [ms[stage] for ms in found if stage in ms] for stage in PARTS}
    ends = [(frame['arrived'] - frame['sent']) / 1e6 for frame in answered]
    return {
        'sent': len(phase.frames),
        'answered': len(answered),
        'end_to_end_ms': percentiles(ends) if ends else None,
        'p999_ms': round(float(np.percentile(ends or [np.nan], 99.9)), 4),
        'longest_gap_ms': round(float(max(gaps, default=np.nan)), 4),
        'stages_ms': {stage: percentiles(ms) for stage, ms in stages.items() if ms},
        'turn_ms': {
            name: percentiles([1e3 * turns[name] for turns in phase.rounds])
            for name in (phase.rounds[0] if phase.rounds else ())
        },
        'use': phase.use,
    }


# -- sessions: each yields its figures, and leaves what it saw in ``seen`` ---------------------


def one_camera(options: argparse.Namespace, seen: dict[str, Any]) -> Iterator[Figure]:
    """One camera, frame by frame and at three rates."""
    with serving(options, seen) as probe:
        closed = probe.turns('closed', BESIDE_ALONE, options.rounds)
        for rate in (10, 20):
            probe.paced(rate, options.rounds / 15)
        probe.paced(30, options.seconds)
    found = [(f['ms'], by['alone']) for f, by in zip(closed.frames, closed.rounds) if 'ms' in f]
    inside = [ms['network'] / 1e3 / alone for ms, alone in found]
    yield 'network_in_node', inside, '≤ 1.1', "the network's time in the node over it alone"
    added = [(ms['total'] - ms['network']) / ms['network'] for ms, _ in found]
    yield 'node_overhead', added, '≤ 0.12', "what the node adds to its network's time"
    ends = {rate: seen[f'{rate}_hz']['end_to_end_ms'] for rate in (10, 20, 30)}
    kept = {rate: ms for rate, ms in ends.items() if ms and ms['p50'] < 1e3 / rate}
    tails = [ms['p99'] / ms['p50'] for ms in kept.values()]
    yield 'p99_over_p50', tails, '≤ 1.4', f'end to end, at {[*kept]} Hz'
    lost = sum(seen[f'{rate}_hz']['sent'] - seen[f'{rate}_hz']['answered'] for rate in kept)
    yield 'frames_lost', [lost], '≤ 0', f'at {[*kept]} Hz'


def starts(options: argparse.Namespace, seen: dict[str, Any]) -> Iterator[Figure]:
    """Start a node of one camera again and again, its graphs in the cache."""
    seconds = []
    for _ in range(options.fewer):
        with serving(options, seen):
            seconds.append(seen['start_to_first_mask_s'])
    yield 'start_to_first_mask_s', seconds, '≤ 1.0', 'from the process to the first labels'


def small(
    options: argparse.Namespace, seen: dict[str, Any], *, size: tuple[int, int], rate: int,
    goal: str,
) -> Iterator[Figure]:  # fmt: skip
    """CPU time of small pictures, and how many it does where always a frame waits."""
    with serving(options, seen, size=size) as probe:
        # the host's speed moves: a second of frames stands between runs of the network alone
        spent, alone = [], []
        for _ in range(2 * options.fewer // 3):
            turns = probe.turns('alone', {'alone': ()}, 15).rounds
            alone.append(float(np.mean([turn['alone_cpu'] for turn in turns])))
            paced = probe.paced(rate, 1)
            spent.append(paced.use['ours']['cpu'] * paced.seconds / len(paced.answered()))
        sustained = {
            name: probe.turns(name, OURS, 4, frames=options.rounds // 3, window=2, topics=topics)
            for name, topics in (('labels', LABELS), ('overlay', (*LABELS, 'overlay')))
        }
    of = '{}×{}'.format(*size)
    yield f'cpu_ms, {of}', [1e3 * s for s in spent], '', 'CPU time a mask, all threads of the node'
    ratios = [ours / network for ours, network in zip(spent, alone)]
    yield f'cpu_over_alone, {of}', ratios, goal, "the same over its network's alone"
    for name, phase in sustained.items():
        answered = len(phase.answered()) / len(phase.rounds)
        hz = [answered / turns['ours'] for turns in phase.rounds]
        yield f'sustained_hz, {of}, {name}', hz, '', 'one camera, always a frame waiting'


def peers(options: argparse.Namespace, seen: dict[str, Any]) -> Iterator[Figure]:
    """Nodes as others write them, in turns."""
    contenders = {name: (name,) for name in ('ours', *options.peers)}
    with serving(options, seen, cameras=('ours',), peers=options.peers) as probe:
        phase = probe.turns('throughput', contenders, options.fewer, frames=3, window=2)
    goals = {'ort_node': '≥ 1.4', 'plain_node': '≥ 6', 'segformer_node': '≥ 14'}
    for peer in options.peers:
        ratios = [turns[peer] / turns['ours'] for turns in phase.rounds]
        yield f'vs_{peer}', ratios, goals[peer], 'its time over ours'


def cameras(options: argparse.Namespace, seen: dict[str, Any], *, count: int) -> Iterator[Figure]:
    """Several cameras beside one of them, and at 30 Hz, which may be more than it can do."""
    names = [f'camera{index}' for index in range(count)]
    with serving(options, seen, cameras=names) as probe:
        phase = probe.turns('closed', {'one': names[:1], 'all': names}, 2 * options.fewer)
        probe.paced(30, options.seconds, names)
    ratios = [turns['all'] / turns['one'] for turns in phase.rounds]
    goal, text = '≤ 6.5' if count == 8 else '', 'a frame of each of them over one of one'
    yield f'{count}_cameras_over_one', ratios, goal, text


def all_networks(options: argparse.Namespace, seen: dict[str, Any]) -> Iterator[Figure]:
    """Memory with three networks."""
    # every network has to be loaded where any route may be taken
    table = {'router.table.dusk': 'night', 'router.table.night': 'translate'}
    with serving(options, seen, route='auto', **table) as probe:
        use = probe.turns('closed', OURS, 2 * options.fewer).use['ours']
    yield 'memory_mb', [use['resident_mb']], '≤ 500', 'resident with all three networks'


SESSIONS: dict[str, Callable[..., Iterator[Figure]]] = {
    'one_camera': one_camera,
    'starts': starts,
    'tiny': partial(small, size=TINY, rate=10, goal=''),
    'small': partial(small, size=NHD, rate=30, goal='≤ 1.2'),
    'peers': peers,
    **{f'{count}_cameras': partial(cameras, count=count) for count in (2, 4, 8)},
    'all_networks': all_networks,
}


def judged(values: Sequence[float], goal: str, busy: bool) -> dict[str, Any]:
    """Return the median, its 10th and 90th percentile, and whether the goal was met."""
    low, median, high = (float(v) for v in np.percentile(values or [np.nan], (10, 50, 90)))
    sign, _, bound = goal.partition(' ')
    # as if more were better
    least, most = (low, high) if sign == '≥' else (-high, -low)
    limit = float(bound or 'nan') * (1 if sign == '≥' else -1)
    verdict = 'met' if least >= limit else 'missed' if most < limit else 'not resolved'
    return {
        'low': round(low, 4), 'median': round(median, 4), 'high': round(high, 4), 'goal': goal,
        'verdict': '' if not goal else 'not resolved' if busy else verdict,
    }  # fmt: skip


def main() -> None:
    """Run the sessions; what is measured is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--out', type=Path, default=Path('out/live'))
    add('--rounds', type=int, default=120, help='frames of one camera, one by one')
    add('--seconds', type=float, default=8.0, help='of what is sent at 30 Hz')
    add('--only', nargs='+', default=[*SESSIONS], choices=SESSIONS, help='sessions')
    present = [n for n in PEERS if n != 'segformer_node' or find_spec('transformers')]
    add('--peers', nargs='+', default=present, choices=PEERS)
    add('--backend', default='auto')
    for name in WEIGHTS:
        add(f'--{name}', default=name, help=f'weights of the route {name}')
    options = parser.parse_args()
    # sessions of more than one camera take fewer rounds
    options.fewer = max(options.rounds // 10, 2)
    options.out.mkdir(parents=True, exist_ok=True)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1) >= BUSY
    if busy:
        print('this machine has other work: no goal is judged')
    result: dict[str, Any] = {
        'machine': machine(), 'versions': versions(),
        'settings': {**vars(options), 'out': str(options.out)}, 'figures': [], 'sessions': {},
    }  # fmt: skip
    # the peers lie beside this script
    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)
    for name in options.only:
        print(f'{name} …', flush=True)
        seen = result['sessions'][name] = {}
        result['figures'] += [
            {'name': figure, **judged(values, goal, busy), 'text': text}
            for figure, values, goal, text in SESSIONS[name](options, seen)
        ]
        (options.out / 'live.json').write_text(json.dumps(result, indent=1) + '\n')
    for figure in result['figures']:
        line = '{name:30} {median:9.3f} ({low:.3f} to {high:.3f})  {goal:7} {verdict:13} {text}'
        print(line.format(**figure))


if __name__ == '__main__':
    main()
