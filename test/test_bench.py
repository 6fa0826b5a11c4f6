# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bench``: ratios of made-up times, and a tiny run of the whole way."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_weights import write_illumination, write_segmenter, write_translator

from nightseg_ros.benchmark import sessions as sessions_module
from nightseg_ros.benchmark.document import fill, markdown
from nightseg_ros.benchmark.figures import figures
from nightseg_ros.benchmark.goals import GOALS, judged
from nightseg_ros.benchmark.orders import Orders, Paced, Turns
from nightseg_ros.benchmark.phases import PARTS, summary
from nightseg_ros.benchmark.pipelines import Setup, Times, measure, setups
from nightseg_ros.benchmark.process_use import process_use
from nightseg_ros.benchmark.ratios import ratios
from nightseg_ros.benchmark.roofline import network_work, shares
from nightseg_ros.benchmark.sessions import Session, sessions
from nightseg_ros.benchmark.spread import percentiles, ratio
from nightseg_ros.cli import bench
from nightseg_ros.perception.pipeline import WeightsConfig
from nightseg_ros.weights import load_weights

RATIOS = {
    'node_overhead', 'translate_over_day', 'vs_plain_node', 'vs_ort_node', 'vs_segformer',
    'eight_cameras_over_one', 'overlay_share', 'p99_over_p50',
}  # fmt: skip


def phase(
    frames: list[dict[str, Any]] | None = None, rounds: list[dict[str, float]] | None = None,
    resident: float = 500.0,
) -> dict[str, Any]:  # fmt: skip
    use = {'ours': {'resident_mb': resident, 'peak_mb': resident, 'cpu_s': 1.0, 'cpu': 0.5}}
    return {'seconds': 1.0, 'frames': frames or [], 'rounds': rounds or [], 'use': use}


def frame(latency_ms: float | None = 50.0, **ms: float) -> dict[str, Any]:
    parts = {**dict.fromkeys(PARTS, 0.0), 'total': 0.0, **ms}
    arrived = {} if latency_ms is None else {'arrived': 1_000 + int(latency_ms * 1e6)}
    return {'camera': 'camera', 'stamp': 1, 'sent': 1_000, **arrived, 'ms': parts}


def made_up(slowness: float = 1.0) -> tuple[dict[str, Any], list[Times]]:
    """Return a run in which every ratio is known, on a machine that much slower."""
    s = slowness
    tail = [frame(20.0 * s)] * 95 + [frame(40.0 * s)] * 5
    found = {
        'one_camera': {
            'first': {'camera': 4_000_000_000},
            'started': {'ours': 1_000_000_000},
            'phases': {
                'closed': phase(
                    [frame(network=20.0 * s, total=22.0 * s)] * 3, [{'ours': 0.03 * s}] * 3
                ),
                'everything': phase([frame(network=15.0 * s, render=2.0 * s, publish=3.0 * s)]),
                '10_hz': phase(tail),
                '20_hz': phase([frame(20.0 * s), frame(90.0 * s)]),
                '30_hz': phase([frame(20.0 * s)] * 30),
            },
        },
        'sustained': {
            'phases': {
                'labels': phase([frame()] * 20, [{'ours': 0.25 * s}] * 2),
                'overlay': phase([frame()] * 20, [{'ours': 0.5 * s}] * 2),
            }
        },
        'eight_cameras': {
            'phases': {'closed': phase(rounds=[{'one': 0.02 * s, 'eight': 0.1 * s}] * 4)}
        },
        'all_networks': {'phases': {'closed': phase(resident=640.0)}},
        'soak': {'phases': {'20 %': phase(resident=400.0), '100 %': phase(resident=401.5)}},
        'peers': {
            'phases': {
                'throughput': phase(
                    rounds=[
                        {
                            'ours': 0.1 * s * noise, 'plain_node': 0.7 * s * noise,
                            'ort_node': 0.2 * s * noise, 'segformer_node': 0.9 * s * noise,
                        }
                        for noise in (1.0, 3.0, 0.5)
                    ]
                )
            }
        },
    }  # fmt: skip
    base = Setup(backend='auto')
    routes = [
        Times(setup=setup, batch_ms=[took * s], stages_ms={'network': [took * s]})
        for setup, took in (
            (base, 10.0),
            (Setup(backend='auto', route='day'), 10.0),
            (Setup(backend='torch', route='day'), 1.0),
            (Setup(backend='auto', route='translate'), 17.0),
        )
    ]
    return found, routes


def test_every_ratio_of_a_made_up_run() -> None:
    found = ratios(*made_up())
    assert set(found) == RATIOS
    assert {name: r['value'] for name, r in found.items()} == pytest.approx(
        {
            'node_overhead': 0.1,
            'overlay_share': 0.1,
            'p99_over_p50': 2.0,
            'vs_plain_node': 7.0,
            'vs_ort_node': 2.0,
            'vs_segformer': 9.0,
            'eight_cameras_over_one': 5.0,
            'translate_over_day': 1.7,
        },
        abs=0.001,
    )
    # what slows a whole round slows both sides of its ratio
    assert found['vs_plain_node']['low'] == found['vs_plain_node']['high'] == 7.0
    assert found['vs_plain_node']['rounds'] == 3


@given(st.floats(0.01, 100))
def test_a_slower_machine_has_the_same_ratios(slowness: float) -> None:
    slow, plain = ratios(*made_up(slowness)), ratios(*made_up())
    assert {n: r['value'] for n, r in slow.items()} == pytest.approx(
        {n: r['value'] for n, r in plain.items()}, rel=0.01
    )


def test_what_was_not_run_has_no_ratio_and_no_verdict() -> None:
    assert ratios({}, []) == {}
    assert figures({}) == {}
    assert {verdict['met'] for verdict in judged({})} == {None}
    found, _ = made_up()
    assert set(ratios({'peers': found['peers']}, [])) == {
        'vs_plain_node', 'vs_ort_node', 'vs_segformer',
    }  # fmt: skip


def test_figures_with_a_unit() -> None:
    found, _ = made_up()
    assert figures(found) == {
        'start_to_first_mask_s': 3.0,
        'avoidable_drops': 0,
        'sustained_hz': 40.0,
        'sustained_overlay_hz': 20.0,
        'memory_mb': 640.0,
        'memory_growth_mb': 1.5,
    }


def test_a_drop_counts_only_where_the_node_could_have_kept_up() -> None:
    found, _ = made_up()
    phases = found['one_camera']['phases']
    phases['10_hz']['frames'].append(frame(None))
    assert figures(found)['avoidable_drops'] == 1
    # 33 Hz at best: at 32 a lost frame says little
    phases['32_hz'] = phase([frame(None)])
    assert figures(found)['avoidable_drops'] == 1


def test_goals_are_judged_on_their_side() -> None:
    verdicts = {
        verdict['name']: verdict['met']
        for verdict in judged({'node_overhead': 0.16, 'sustained_hz': 30.0, 'vs_segformer': 7.9})
        if verdict['met'] is not None
    }
    assert verdicts == {'node_overhead': False, 'sustained_hz': True, 'vs_segformer': False}
    assert {goal.name for goal in GOALS} >= RATIOS


def test_summary_of_a_phase() -> None:
    told = summary(phase([frame(10.0, network=7.0), frame(30.0), frame(None)], [{'ours': 0.5}]))
    assert (told['sent'], told['answered']) == (3, 2)
    assert told['end_to_end_ms']['p50'] == pytest.approx(20.0)
    assert told['stages_ms']['network']['count'] == 3
    assert told['turn_ms']['ours']['p50'] == pytest.approx(500.0)


def test_percentiles_of_nothing() -> None:
    assert percentiles([]) == {'p50': None, 'p95': None, 'p99': None, 'count': 0}
    assert ratio([], []) is None


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=30))
def test_a_ratio_lies_within_its_spread(pairs: list[tuple[float, float]]) -> None:
    found = ratio([a for a, _ in pairs], [b for _, b in pairs])
    assert found is not None
    assert found['low'] <= found['value'] <= found['high']
    assert found['rounds'] == len(pairs)


def test_orders_survive_their_file(tmp_path: Path) -> None:
    for session in sessions(short=True):
        session.orders.write(tmp_path / 'orders.json')
        assert Orders.read(tmp_path / 'orders.json') == session.orders


def test_every_camera_that_is_sent_a_frame_is_served() -> None:
    for session in sessions():
        named = {
            camera
            for phase in session.orders.turns
            for cameras in phase.contenders.values()
            for camera in cameras
        } | {camera for phase in session.orders.paced for camera in phase.cameras}
        assert named <= set(session.orders.cameras)
        assert set(session.peers) <= named


def test_what_this_process_takes() -> None:
    before = process_use(os.getpid())
    ballast = np.ones(80_000_000, np.uint8)
    after = process_use(os.getpid())
    assert after.resident_mb - before.resident_mb == pytest.approx(ballast.nbytes / 1e6, rel=0.5)
    assert after.peak_mb >= after.resident_mb > 10
    assert after.cpu_s >= before.cpu_s > 0
    with pytest.raises(OSError):
        process_use(2**22 + 1)


# -- the pipeline without ROS ----------------------------------------------------------------


@pytest.fixture(scope='module')
def tiny(tmp_path_factory: pytest.TempPathFactory) -> WeightsConfig:
    folder = tmp_path_factory.mktemp('tiny')
    return WeightsConfig(
        day=str(write_segmenter(folder / 'day.safetensors', 1)),
        night=str(write_segmenter(folder / 'night.safetensors', 2)),
        translator=str(write_translator(folder / 'translator.safetensors')),
        illumination=str(write_illumination(folder / 'illumination.safetensors')),
    )


def test_every_setup_takes_its_turn(tiny: WeightsConfig) -> None:
    scenes = np.random.default_rng(0).integers(0, 255, (2, 45, 80, 3), np.uint8)
    candidates = [
        Setup(backend='torch', size=(80, 46)),
        Setup(backend='torch', size=(80, 46), cameras=3),
        Setup(backend='torch', size=(64, 36), route='translate', draw=True),
    ]
    found = measure(candidates, scenes, 2, lambda text: None, weights=tiny)
    assert [len(times.batch_ms) for times in found] == [2, 2, 2]
    assert [len(times.stages_ms['network']) for times in found] == [2, 6, 2]
    told = found[2].summary()
    assert (told['route'], told['size'], told['draw']) == ('translate', (64, 36), True)
    assert told['batch_ms']['p50'] >= told['stages_ms']['network']['p50'] > 0


def test_setups_vary_one_thing_at_a_time() -> None:
    base, *others = setups('openvino', ['torch', 'openvino'])
    for other in others:
        fields = ('backend', 'size', 'route', 'cameras', 'draw')
        assert sum(getattr(base, f) != getattr(other, f) for f in fields) == 1, other
    assert [setup.backend for setup in others].count('torch') == 1


def test_work_of_a_network_grows_with_its_pixels(tiny: WeightsConfig) -> None:
    weights = load_weights(tiny.night)
    small, large = (network_work(weights, 64, side) for side in (64, 128))
    assert large['gmac'] == pytest.approx(2 * small['gmac'], rel=0.15)
    assert large['megabytes'] > small['megabytes'] > 0


def test_the_narrower_bound_is_the_roof() -> None:
    peaks = {'gmac_per_s': 100.0, 'gigabytes_per_s': 10.0}
    told = shares({'gmac': 1.0, 'megabytes': 50.0}, peaks, 20.0)
    assert told == {'compute_ms': 10.0, 'memory_ms': 5.0, 'network_ms': 20.0, 'share': 0.5}


# -- the whole way ---------------------------------------------------------------------------


def tiny_sessions(**settings: Any) -> list[Session]:
    """Return two sessions of a few small frames each."""
    size = (160, 90)

    def node(*cameras: str) -> dict[str, str]:
        names = ', '.join(f'"{camera}"' for camera in cameras)
        return {'cameras': f'[{names}]', 'route': 'night', **settings['weights']}

    alone = {'ours': ('camera',)}
    return [
        Session(
            name='one_camera', size=size, nodes={'ours': node('camera', 'other')},
            orders=Orders(
                cameras=('camera', 'other'),
                turns=(
                    Turns(name='closed', contenders=alone, rounds=5),
                    Turns(name='everything', contenders=alone, rounds=4, frames=2, window=2,
                          topics=sessions_module.EVERYTHING),
                ),
                paced=(Paced(name='10_hz', cameras=('camera', 'other'), rate=10, seconds=1),),
            ),
        ),
        Session(
            name='peers', size=size, nodes={'ours': node('ours')}, peers=('plain_node',),
            orders=Orders(
                cameras=('ours', 'plain_node'),
                turns=(
                    Turns(name='throughput', rounds=2,
                          contenders={'ours': ('ours',), 'plain_node': ('plain_node',)}),
                ),
            ),
        ),
    ]  # fmt: skip


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.skipif(find_spec('rclpy') is None, reason='rclpy is neither installed nor sourced')
def test_a_tiny_run_of_the_verb(
    tmp_path: Path, tiny: WeightsConfig, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sessions_module, 'sessions', tiny_sessions)
    out = tmp_path / 'out'
    arguments = ['--out', str(out), '--short', '--only', 'one_camera', 'peers']
    for place in ('day', 'night'):
        arguments += [f'--weights-{place}', getattr(tiny, place)]
    arguments += ['--weights-translator', tiny.translator]
    assert bench.main(arguments) == 0

    written = json.loads((out / 'bench.json').read_text())
    assert {path.name for path in out.iterdir()} == {'bench.json', 'bench.md'}
    phases = written['sessions']['one_camera']['phases']
    closed = phases['closed']
    assert (closed['sent'], closed['answered']) == (5, 5)
    assert set(closed['stages_ms']) == {'receive', *PARTS, 'total'}
    for stage in closed['stages_ms'].values():
        assert 0 <= stage['p50'] <= stage['p99']
    assert closed['end_to_end_ms']['p50'] > closed['stages_ms']['total']['p50']
    assert phases['everything']['answered'] == 8
    assert phases['10_hz']['sent'] in (20, 22)
    assert phases['10_hz']['use']['ours']['resident_mb'] > 50
    assert {'node_overhead', 'overlay_share', 'vs_plain_node'} <= set(written['ratios']) <= RATIOS
    assert written['figures']['start_to_first_mask_s'] > 0
    assert written['machine']['cores'] >= 1
    assert written['versions']['nightseg']
    assert (out / 'bench.md').read_text() == markdown(written)
    page = Path(__file__).parent.parent / 'docs' / 'performance.md'
    filled = fill(page.read_text(), written)
    assert filled.count('| `node_overhead` | what') == 1
    assert fill(filled, written) == filled
    assert '`node_overhead`' in capsys.readouterr().out


def test_an_unknown_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='nonsense'):
        bench.main(['--out', str(tmp_path), '--only', 'nonsense'])
