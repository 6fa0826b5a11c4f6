# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The figures that goals are set for.

Ratios divide what was measured in turns within one run, round by round, so that they do not depend
on how fast the machine is, nor on how busy it was meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nightseg_ros.benchmark.phases import PARTS, Raw, end_to_end_ms, turns
from nightseg_ros.benchmark.pipelines import Times
from nightseg_ros.benchmark.spread import ratio

Sessions = Mapping[str, Raw]
"""Each session as ``cli/bench_live.run_session`` returns it, by name."""
Ratio = dict[str, Any]

#: Frames below which nothing is said of a phase's 99th percentile.
FEWEST = 20
RATIO_OF_PEER = {
    'plain_node': 'vs_plain_node', 'ort_node': 'vs_ort_node', 'segformer_node': 'vs_segformer',
}  # fmt: skip


def ratios(sessions: Sessions, pipelines: Sequence[Times]) -> dict[str, Ratio]:
    """
    Return every ratio that can be told, by the name of its goal.

    ``node_overhead``: from the callback that receives an image to its labels handed to DDS, less
    the network's compute, over that compute. ``p99_over_p50``: end to end between processes, the
    worst of the paced phases. ``translate_over_day``: a frame by either route. ``vs_…``: time of
    a peer for the same frames over ours. ``eight_cameras_over_one``: a frame of each of eight
    cameras over a frame of one. ``overlay_share``: drawing, in a frame of which everything is
    drawn and published.
    """
    found: dict[str, Ratio | None] = {}
    one = _phases(sessions, 'one_camera')
    if 'closed' in one:
        told = _told(one['closed'])
        network = [ms['network'] for ms in told]
        found['node_overhead'] = ratio([ms['total'] - ms['network'] for ms in told], network)
    if 'everything' in one:
        told = _told(one['everything'])
        # 'total' ends with the labels, and the pictures come after them
        whole = [sum(ms[stage] for stage in PARTS) for ms in told]
        found['overlay_share'] = ratio([ms['render'] for ms in told], whole)
    found['p99_over_p50'] = _tail(one)
    found.update(_against_peers(_phases(sessions, 'peers').get('throughput')))
    eight = _phases(sessions, 'eight_cameras').get('closed')
    if eight is not None:
        found['eight_cameras_over_one'] = ratio(turns(eight, 'eight'), turns(eight, 'one'))
    found['translate_over_day'] = _routes(pipelines)
    return {name: value for name, value in found.items() if value is not None}


def _phases(sessions: Sessions, name: str) -> Mapping[str, Raw]:
    found: Mapping[str, Raw] = sessions.get(name, {}).get('phases', {})
    return found


def _told(phase: Raw) -> list[Mapping[str, float]]:
    return [frame['ms'] for frame in phase['frames'] if 'network' in frame.get('ms', {})]


def _against_peers(phase: Raw | None) -> dict[str, Ratio | None]:
    if phase is None:
        return {}
    ours = turns(phase, 'ours')
    return {
        goal: ratio(turns(phase, peer), ours)
        for peer, goal in RATIO_OF_PEER.items()
        if peer in phase['rounds'][0]
    }


def _tail(phases: Mapping[str, Raw]) -> Ratio | None:
    """Return p99 over p50 of the paced phases: the worst, and the range over them."""
    found = []
    for name, phase in phases.items():
        latencies = end_to_end_ms(phase['frames'])
        if name.endswith('_hz') and len(latencies) >= FEWEST:
            middle, tail = np.percentile(latencies, (50, 99))
            found.append(round(float(tail / middle), 4))
    if not found:
        return None
    return {'value': max(found), 'low': min(found), 'high': max(found), 'rounds': len(found)}


def _routes(pipelines: Sequence[Times]) -> Ratio | None:
    by_route = {times.setup.route: times for times in pipelines if _plain(times, pipelines[0])}
    if not {'translate', 'day'} <= set(by_route):
        return None
    return ratio(by_route['translate'].batch_ms, by_route['day'].batch_ms)


def _plain(times: Times, base: Times) -> bool:
    """Whether a setup differs from the base in its route at most."""
    setup, other = times.setup, base.setup
    return (setup.backend, setup.size, setup.cameras, setup.draw) == (
        other.backend, other.size, other.cameras, other.draw,
    )  # fmt: skip
