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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
PARTS = ('wait', 'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'publish')
#: Seconds for the nodes to load (the first run exports), and for each later answer.
LOADING_S, ANSWER_S = 300.0, 30.0
#: Load a core from which other work falsifies a figure.
BUSY = 0.5


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Contenders take turns; with a rate frames come at that pace instead, answered or not."""

    contenders: dict[str, tuple[str, ...]] = field(default_factory=lambda: {'ours': ('camera',)})
    """
    Cameras that are sent a frame each, by the name of whose turn it is; none: the network runs
    alone, in this process.
    """
    rounds: int = 1
    frames: int = 1
    """Frames of each camera that are answered in a turn."""
    window: int = 1
    """Frames of a camera that may be on their way at once."""
    topics: tuple[str, ...] = LABELS
    rate: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Session:
    """One night_perception, maybe peers beside it, and what they are asked."""

    phases: dict[str, Phase]
    size: tuple[int, int] = HD
    cameras: tuple[str, ...] = ('camera',)
    """Those of the node; a peer serves the camera of its own name."""
    peers: tuple[str, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    """Those of the node beside backend, weights and the route, which is night."""


def sessions(rounds: int, peers: tuple[str, ...]) -> dict[str, Session]:
    """Return the sessions by name; ``rounds`` are those of one camera, others take fewer."""
    fewer = max(rounds // 10, 2)
    eight = tuple(f'camera{index}' for index in range(8))
    both = {'ours': ('camera',), 'alone': ()}
    paced = {f'{rate}_hz': Phase(rate=rate, seconds=max(rounds / 15, 1)) for rate in (10, 20, 30)}
    sustained = Phase(rounds=4, frames=rounds // 3, window=2)
    short = {'closed': Phase(contenders=both, rounds=2 * fewer)}
    return {
        'one_camera': Session(phases={'closed': Phase(contenders=both, rounds=rounds), **paced}),
        'tiny': Session(size=TINY, phases={**short, '10_hz': paced['10_hz']}),
        'small': Session(
            size=NHD,
            phases={
                **short, '30_hz': paced['30_hz'], 'labels': sustained,
                'overlay': replace(sustained, topics=(*LABELS, 'overlay')),
            },
        ),
        'peers': Session(
            cameras=('ours',), peers=peers,
            phases={
                'throughput': Phase(
                    rounds=fewer, frames=3, window=2,
                    contenders={name: (name,) for name in ('ours', *peers)},
                ),
            },
        ),
        'eight_cameras': Session(
            cameras=eight,
            phases={
                'closed': Phase(contenders={'one': eight[:1], 'eight': eight}, rounds=2 * fewer),
            },
        ),
        **{
            f'{count}_cameras': Session(
                cameras=eight[:count],
                phases={'30_hz': replace(paced['30_hz'], contenders={'ours': eight[:count]})},
            )
            for count in (2, 4)
        },
        'all_networks': Session(
            phases={'closed': Phase(rounds=2 * fewer)},
            # every network has to be loaded where any route may be taken
            parameters={
                'route': 'auto', 'router.table.dusk': 'night', 'router.table.night': 'translate',
            },
        ),
    }  # fmt: skip


class Probe(Graph):
    """Publishes frames of one session, and keeps when the labels of each came back."""

    def __init__(self, session: Session, alone: Callable[[], Any]) -> None:
        """Create a publisher a camera; ``alone`` runs the network in this process."""
        super().__init__()
        self.alone = alone
        street = Street(1, 'demo')
        scenes = [render(street, 9.0 * n, 'night', seed=n).image for n in range(3)]
        self.messages = [
            ImageMessage('rgb8').fill(Header(), np.asarray(cv2.resize(s, session.size), np.uint8))
            for s in scenes
        ]
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publishers = {
            camera: self.node.create_publisher(Image, f'{camera}/image_raw', qos)
            for camera in (*session.cameras, *session.peers)
        }
        self.subscriptions: list[Any] = []
        # of a frame: camera, stamp, sent and arrived (ns of the steady clock), ms by stage
        self.waiting: dict[tuple[str, int], dict[str, Any]] = {}
        self.kept: dict[tuple[str, int], dict[str, Any]] = {}
        self.newest: dict[str, int] = {}
        self.count = self.last_ns = 0

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

    def measure(self, phase: Phase) -> dict[str, Any]:
        """Return frames, seconds of the turns and the use of each process."""
        cameras = {camera for cameras in phase.contenders.values() for camera in cameras}
        self._listen(sorted(cameras), phase.topics)
        self.spin(0.5)
        self.kept, self.waiting, rounds = {}, {}, []
        before, began = self._use(), time.monotonic()
        if phase.rate:
            self._pace(phase, sorted(cameras))
        for number in range(0 if phase.rate else phase.rounds):
            names = list(phase.contenders)
            # whoever follows the slowest shall not always be the same
            shift = number % len(names)
            turns = {}
            for name in names[shift:] + names[:shift]:
                started, cpu = time.monotonic(), time.process_time()
                if phase.contenders[name]:
                    self._turn(phase.contenders[name], phase)
                else:
                    self.alone()
                    turns['alone_cpu'] = time.process_time() - cpu
                turns[name] = time.monotonic() - started
                # the contender's threads fall asleep
                self.spin(0.03)
            rounds.append(turns)
        seconds, after = time.monotonic() - began, self._use()
        # a status comes after its labels
        self.spin(0.2)
        return {
            'frames': [*self.kept.values(), *self.waiting.values()],
            'rounds': rounds,
            'seconds': seconds,
            'use': {
                name: {
                    'cpu': (after[name]['cpu_s'] - held['cpu_s']) / seconds,
                    'resident_mb': after[name]['rss_mb'] + after[name]['shm_mb'],
                }
                for name, held in before.items()
            },
        }

    def _turn(self, cameras: Sequence[str], phase: Phase) -> None:
        """Send each camera frames, ``window`` at once, until so many are answered."""
        left = dict.fromkeys(cameras, phase.frames)
        end = time.monotonic() + ANSWER_S
        while any(left.values()) or self.waiting:
            for camera in cameras:
                flying = sum(1 for name, _ in self.waiting if name == camera)
                while left[camera] and flying < phase.window:
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

    def _pace(self, phase: Phase, cameras: Sequence[str]) -> None:
        """Send frames at the phase's rate; late ones are sent at once."""
        due = time.monotonic()
        end = due + phase.seconds
        while due < end:
            self.spin(due - time.monotonic())
            for camera in cameras:
                self._send(camera)
            due += 1 / phase.rate
        self.spin(0.5)

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


def run_session(session: Session, options: argparse.Namespace) -> dict[str, Any]:
    """Start the session's processes and return what was measured of each phase."""
    parameters = {
        'route': 'night', 'backend': options.backend, 'cameras': json.dumps(session.cameras),
        **{f'weights.{name}': getattr(options, name) for name in WEIGHTS}, **session.parameters,
    }  # fmt: skip
    alone = network_alone(options.backend, options.night, session.size)
    with Probe(session, alone) as probe:
        began = time.monotonic_ns()
        probe.start('ours', 'nightseg_ros.node.main', ros_arguments(parameters))
        for peer in session.peers:
            probe.start(peer, 'peers', [peer])
        first = probe.first_answers()
        phases = {name: probe.measure(phase) for name, phase in session.phases.items()}
    return {'start_to_first_mask_s': (first - began) / 1e9, 'phases': phases}


def summary(phase: dict[str, Any]) -> dict[str, Any]:
    """Return counts, latencies in ms, turns in ms and the use of one phase."""
    frames = phase['frames']
    answered = [(f['arrived'] - f['sent']) / 1e6 for f in frames if 'arrived' in f]
    arrived = [(frame['camera'], frame['arrived']) for frame in frames if 'arrived' in frame]
    # of one camera
    gaps = [
        gap / 1e6 for name in {camera for camera, _ in arrived}
        for gap in np.diff(sorted(when for camera, when in arrived if camera == name))
    ]  # fmt: skip
    found = [frame['ms'] for frame in frames if 'ms' in frame]
    stages = {s: [ms[s] for ms in found if s in ms] for s in ('receive', *PARTS, 'total')}
    return {
        'sent': len(frames),
        'answered': len(answered),
        'end_to_end_ms': percentiles(answered) if answered else None,
        'longest_gap_ms': round(float(max(gaps, default=np.nan)), 4),
        'stages_ms': {stage: percentiles(ms) for stage, ms in stages.items() if ms},
        'turn_ms': {
            name: percentiles([1e3 * turns[name] for turns in phase['rounds']])
            for name in (phase['rounds'][0] if phase['rounds'] else ())
        },
        'use': phase['use'],
    }


def figures(raw: dict[str, Any]) -> Iterator[tuple[str, Sequence[float], str, str]]:
    """Yield name, value by round, goal and meaning of each figure of the sessions that ran."""

    def phases(session: str) -> dict[str, Any]:
        return raw[session]['phases'] if session in raw else {}

    def ratios(phase: dict[str, Any], above: str, below: str) -> list[float]:
        return [turns[above] / turns[below] for turns in phase['rounds']]

    one = phases('one_camera')
    if one:
        frames, rounds = one['closed']['frames'], one['closed']['rounds']
        found = [(f['ms'], turns['alone']) for f, turns in zip(frames, rounds) if 'ms' in f]
        inside = [ms['network'] / 1e3 / alone for ms, alone in found]
        yield 'network_in_node', inside, '≤ 1.1', "the network's time in the node over it alone"
        added = [(ms['total'] - ms['network']) / ms['network'] for ms, _ in found]
        yield 'node_overhead', added, '≤ 0.12', "what the node adds to its network's time"
        paced = {int(n.split('_')[0]): summary(p) for n, p in one.items() if n.endswith('_hz')}
        ends = {rate: p['end_to_end_ms'] for rate, p in paced.items() if p['end_to_end_ms']}
        kept = {rate: ms for rate, ms in ends.items() if ms['p50'] < 1e3 / rate}
        tails = [ms['p99'] / ms['p50'] for ms in kept.values()]
        yield 'p99_over_p50', tails, '≤ 1.4', f'end to end, at {[*kept]} Hz'
        lost = [paced[rate]['sent'] - paced[rate]['answered'] for rate in kept]
        yield 'frames_lost', [sum(lost)], '≤ 0', f'at {[*kept]} Hz'
        start = raw['one_camera']['start_to_first_mask_s']
        yield 'start_to_first_mask_s', [start], '≤ 1.0', 'from the process to the first labels'
    for name, goal in (('tiny', ''), ('small', '≤ 1.2')):
        for phase in (p for n, p in phases(name).items() if n.endswith('_hz')):
            spent = phase['use']['ours']['cpu'] * phase['seconds']
            spent /= sum('arrived' in frame for frame in phase['frames'])
            yield f'cpu_ms, {name}', [1e3 * spent], '', 'CPU time a mask, all threads of the node'
            alone = [spent / turns['alone_cpu'] for turns in phases(name)['closed']['rounds']]
            yield f'cpu_over_alone, {name}', alone, goal, "the same over its network's alone"
    for name, phase in phases('small').items():
        if name not in ('labels', 'overlay'):
            continue
        answered = sum('arrived' in frame for frame in phase['frames']) / len(phase['rounds'])
        hz = [answered / turns['ours'] for turns in phase['rounds']]
        yield f'sustained_hz, {name}', hz, '', 'one 640×360 camera, always a frame waiting'
    goals = {'ort_node': '≥ 1.4', 'plain_node': '≥ 6', 'segformer_node': '≥ 14'}
    for phase in phases('peers').values():
        for peer in (name for name in phase['rounds'][0] if name != 'ours'):
            yield f'vs_{peer}', ratios(phase, peer, 'ours'), goals[peer], 'its time over ours'
    for phase in phases('eight_cameras').values():
        value = ratios(phase, 'eight', 'one')
        yield 'eight_cameras_over_one', value, '≤ 6.5', 'a frame of each of eight over one of one'
    for phase in phases('all_networks').values():
        resident = phase['use']['ours']['resident_mb']
        yield 'memory_mb', [resident], '≤ 500', 'resident with all three networks'


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
    add('--only', nargs='+', default=[], help='sessions by name; without it all')
    present = [n for n in PEERS if n != 'segformer_node' or find_spec('transformers')]
    add('--peers', nargs='+', default=present, choices=PEERS)
    add('--backend', default='auto')
    for name in WEIGHTS:
        add(f'--{name}', default=name, help=f'weights of the route {name}')
    options = parser.parse_args()
    planned = sessions(options.rounds, tuple(options.peers))
    if unknown := set(options.only) - set(planned):
        parser.error(f'--only names {sorted(unknown)}; there are {list(planned)}')
    options.out.mkdir(parents=True, exist_ok=True)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1) >= BUSY
    if busy:
        print('this machine has other work: no goal is judged')
    result = {'machine': machine(), 'versions': versions(), 'settings': {
        **vars(options), 'out': str(options.out)}}  # fmt: skip
    # the peers lie beside this script
    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)
    raw: dict[str, Any] = {}
    for name in options.only or planned:
        print(f'{name} …', flush=True)
        raw[name] = run_session(planned[name], options)
        result['figures'] = [
            {'name': n, **judged(values, goal, busy), 'text': text}
            for n, values, goal, text in figures(raw)
        ]
        result['sessions'] = {
            name: {phase: summary(found) for phase, found in session['phases'].items()}
            for name, session in raw.items()
        }
        (options.out / 'live.json').write_text(json.dumps(result, indent=1) + '\n')
    for figure in result['figures']:
        line = '{name:24} {median:9.3f} ({low:.3f} to {high:.3f})  {goal:7} {verdict:13} {text}'
        print(line.format(**figure))


if __name__ == '__main__':
    main()
