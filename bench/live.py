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
import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
import json
import os
from pathlib import Path
import tempfile
import time
from typing import Any

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticArray
from nightseg_ros.cli.machine import machine, percentiles, versions
from nightseg_ros.cli.processes import Child
from nightseg_ros.dds import private_domain, profile_environment
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.shared_memory import remove_orphans
from nightseg_ros.simulation.drive import render
from nightseg_ros.simulation.street import Street
import numpy as np
from peers import PEERS
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from watch import resources, ros_arguments

HD, NHD, TINY = (1280, 720), (640, 360), (160, 120)
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

    name: str
    contenders: dict[str, tuple[str, ...]]
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

    size: tuple[int, int]
    cameras: tuple[str, ...]
    """Those of the node; a peer serves the camera of its own name."""
    phases: tuple[Phase, ...]
    peers: tuple[str, ...] = ()
    parameters: dict[str, str]


def sessions(options: argparse.Namespace) -> dict[str, Session]:
    """Return the sessions by name; ``rounds`` are those of one camera, others take fewer."""
    rounds = options.rounds
    fewer = max(rounds // 10, 2)
    weights = {f'weights.{n}': getattr(options, n) for n in ('day', 'night', 'translator')}
    night = {'route': 'night', 'backend': options.backend, **weights}
    # every network has to be loaded where any route may be taken
    any_route = {
        **night, 'route': 'auto', 'router.table.dusk': 'night', 'router.table.night': 'translate',
    }  # fmt: skip
    one = {'ours': ('camera',)}
    eight = tuple(f'camera{index}' for index in range(8))
    paced = {
        rate: Phase(name=f'{rate}_hz', contenders=one, rate=rate, seconds=max(rounds / 15, 1))
        for rate in (10, 20, 30)
    }
    sustained = tuple(
        Phase(name=name, contenders=one, rounds=4, frames=rounds // 3, window=2, topics=topics)
        for name, topics in (('labels', LABELS), ('overlay', (*LABELS, 'overlay')))
    )
    closed = Phase(name='closed', contenders={**one, 'alone': ()}, rounds=rounds)
    short = replace(closed, rounds=2 * fewer)
    return {
        'one_camera': Session(
            size=HD, cameras=('camera',), parameters=night, phases=(closed, *paced.values())
        ),
        'tiny': Session(
            size=TINY, cameras=('camera',), parameters=night, phases=(short, paced[10])
        ),
        'small': Session(
            size=NHD, cameras=('camera',), parameters=night,
            phases=(short, paced[30], *sustained),
        ),
        'peers': Session(
            size=HD, cameras=('ours',), parameters=night, peers=options.peers,
            phases=(
                Phase(
                    name='throughput', rounds=fewer, frames=3, window=2,
                    contenders={name: (name,) for name in ('ours', *options.peers)},
                ),
            ),
        ),
        'eight_cameras': Session(
            size=HD, cameras=eight, parameters=night,
            phases=(
                Phase(name='closed', contenders={'one': eight[:1], 'eight': eight},
                      rounds=2 * fewer),
            ),
        ),
        **{
            f'{count}_cameras': Session(
                size=HD, cameras=eight[:count], parameters=night,
                phases=(replace(paced[30], contenders={'ours': eight[:count]}),),
            )
            for count in (2, 4)
        },
        'all_networks': Session(
            size=HD, cameras=('camera',), parameters=any_route,
            phases=(replace(short, contenders=one),),
        ),
    }  # fmt: skip


class Probe:
    """Publishes frames of one session, and keeps when the labels of each came back."""

    def __init__(self, session: Session) -> None:
        """Create a publisher a camera, and load the network that runs alone."""
        self.children: dict[str, Child] = {}
        self.alone = network_alone(session)
        self.cameras = (*session.cameras, *session.peers)
        self.node: Any = rclpy.create_node('bench_probe')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        street = Street(1, 'demo')
        scenes = [render(street, 9.0 * n, 'night', seed=n).image for n in range(3)]
        self.messages = [_message(cv2.resize(scene, session.size)) for scene in scenes]
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publishers = {
            camera: self.node.create_publisher(Image, f'{camera}/image_raw', qos)
            for camera in self.cameras
        }
        self.subscriptions: list[Any] = []
        # of a frame: camera, stamp, sent and arrived (ns of the steady clock), ms by stage
        self.waiting: dict[tuple[str, int], dict[str, Any]] = {}
        self.kept: dict[tuple[str, int], dict[str, Any]] = {}
        self.newest: dict[str, int] = {}
        self.count = self.last_ns = 0

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()

    def first_answers(self) -> int:
        """Send until every camera has answered; return when the first did (ns)."""
        self._listen(self.cameras, ('labels',))
        end, missing, first = time.monotonic() + LOADING_S, set(self.cameras), 0
        while missing:
            if time.monotonic() > end:
                raise RuntimeError(f'no labels of {sorted(missing)} within {LOADING_S:g} s')
            for camera in sorted(missing):
                if self.publishers[camera].get_subscription_count():
                    self._send(camera)
            self._spin(0.1)
            missing -= {camera for camera, _ in self.kept}
            first = first or min((sent['arrived'] for sent in self.kept.values()), default=0)
        self._spin(0.5)
        return first

    def measure(self, phase: Phase) -> dict[str, Any]:
        """Return frames, seconds of the turns and the use of each process."""
        cameras = {camera for cameras in phase.contenders.values() for camera in cameras}
        self._listen(sorted(cameras), phase.topics)
        self._spin(0.5)
        self.kept, self.waiting, rounds = {}, {}, []
        before, began = self._cpu(), time.monotonic()
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
                self._spin(0.03)
            rounds.append(turns)
        seconds, after = time.monotonic() - began, self._cpu()
        # a status comes after its labels
        self._spin(0.2)
        return {
            'frames': [*self.kept.values(), *self.waiting.values()],
            'rounds': rounds,
            'seconds': seconds,
            'use': {
                name: {
                    'cpu': (after[name] - cpu) / seconds,
                    'resident_mb': now['rss_mb'] + now['shm_mb'],
                }
                for name, cpu in before.items()
                for now in [resources(self.children[name].pid)]
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
            self._spin(due - time.monotonic())
            for camera in cameras:
                self._send(camera)
            due += 1 / phase.rate
        self._spin(0.5)

    def _send(self, camera: str) -> None:
        message = self.messages[self.count % len(self.messages)]
        self.count += 1
        # two frames never share a stamp
        stamp = self.last_ns = max(time.time_ns(), self.last_ns + 1)
        message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
        self.waiting[camera, stamp] = {
            'camera': camera,
            'stamp': stamp,
            'sent': time.monotonic_ns(),
        }
        self.publishers[camera].publish(message)

    def _listen(self, cameras: Sequence[str], topics: Sequence[str]) -> None:
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
        self.subscriptions = [
            self.node.create_subscription(
                DiagnosticArray if topic == 'status' else Image, f'{camera}/nightseg/{topic}',
                self._receiver(camera, topic), 10,
            )
            for camera in cameras
            for topic in topics
        ]  # fmt: skip

    def _receiver(self, camera: str, topic: str) -> Any:
        def receive(message: Any) -> None:
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

        return receive

    def _spin(self, seconds: float) -> None:
        for child in self.children.values():
            child.check()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def _cpu(self) -> dict[str, float]:
        return {name: resources(child.pid)['cpu_s'] for name, child in self.children.items()}


def _message(frame: Any) -> Image:
    message = Image(encoding='rgb8', height=frame.shape[0], width=frame.shape[1])
    message.step = 3 * message.width
    message.data = array.array('B', frame.tobytes())
    message.header.frame_id = 'camera'
    return message


def network_alone(session: Session) -> Callable[[], Any]:
    """Return what runs the node's network once on a picture of its size."""
    given = session.parameters
    pipeline = Pipeline.load(
        PipelineConfig(
            route='night', backend=given['backend'],
            weights=WeightsConfig(night=given['weights.night']),
        )
    )  # fmt: skip
    size = fit(session.size[1], session.size[0], pipeline.long_side)
    run = partial(pipeline.parts['night'].run, np.zeros((1, *size.padded, 3), np.uint8))
    run()
    return run


def run_session(name: str, session: Session, folder: Path) -> dict[str, Any]:
    """Start the session's processes and return what was measured of each phase."""
    here = str(Path(__file__).parent)
    environ = {**os.environ, 'ROS_LOG_DIR': str(folder), 'PYTHONPATH': os.pathsep.join(
        filter(None, (here, os.environ.get('PYTHONPATH', '')))
    )}  # fmt: skip
    parameters = {**session.parameters, 'cameras': json.dumps(session.cameras)}
    commands = {'ours': ('nightseg_ros.node.main', ros_arguments(parameters))}
    commands |= {peer: ('peers', [peer]) for peer in session.peers}
    with ExitStack() as stack:
        probe = Probe(session)
        stack.callback(probe.close)
        began = time.monotonic_ns()
        for who, (module, arguments) in commands.items():
            log = folder / f'{name}.{who}.log'
            child = Child(who, module, arguments, log=log, environ=environ)
            probe.children[who] = stack.enter_context(child)
        first = probe.first_answers()
        phases = {phase.name: probe.measure(phase) for phase in session.phases}
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
        'p999_ms': round(float(np.percentile(answered or [np.nan], 99.9)), 4),
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
    for name in ('day', 'night', 'translator'):
        add(f'--{name}', default=name, help=f'weights of the route {name}')
    options = parser.parse_args()
    planned = sessions(options)
    if unknown := set(options.only) - set(planned):
        parser.error(f'--only names {sorted(unknown)}; there are {list(planned)}')
    options.out.mkdir(parents=True, exist_ok=True)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1) >= BUSY
    if busy:
        print('this machine has other work: no goal is judged')
    result = {'machine': machine(), 'versions': versions(), 'settings': {
        **vars(options), 'out': str(options.out)}}  # fmt: skip
    with private_domain() as domain, tempfile.TemporaryDirectory(prefix='nightseg-') as work:
        # read by Fast DDS when the first node starts
        os.environ.update({**domain, **profile_environment()})
        remove_orphans()
        rclpy.init(args=[])
        raw: dict[str, Any] = {}
        for name in options.only or planned:
            print(f'{name} …', flush=True)
            raw[name] = run_session(name, planned[name], Path(work))
            result['figures'] = [
                {'name': n, **judged(values, goal, busy), 'text': text}
                for n, values, goal, text in figures(raw)
            ]
            result['sessions'] = {
                name: {phase: summary(found) for phase, found in session['phases'].items()}
                for name, session in raw.items()
            }
            (options.out / 'live.json').write_text(json.dumps(result, indent=1) + '\n')
        rclpy.try_shutdown()
    for figure in result['figures']:
        line = '{name:24} {median:9.3f} ({low:.3f} to {high:.3f})  {goal:7} {verdict:13} {text}'
        print(line.format(**figure))


if __name__ == '__main__':
    main()
