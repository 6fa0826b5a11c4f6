# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The runs of real ROS 2 processes that the benchmark consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nightseg_ros.benchmark.orders import Orders, Paced, Turns

Size = tuple[int, int]

HD: Size = (1280, 720)
NHD: Size = (640, 360)
TINY: Size = (160, 90)
#: Namespaces of eight cameras round a vehicle.
ROUND = tuple(f'camera{index}' for index in range(8))
PEERS = ('plain_node', 'ort_node', 'segformer_node')
#: Every topic that shows a mask; what has to be drawn for somebody who looks at everything.
EVERYTHING = ('labels', 'confidence', 'color', 'overlay', 'status')


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Nodes and peers that run at the same time, and what the probe does with them."""

    name: str
    size: Size
    """Width and height of the cameras."""
    nodes: dict[str, dict[str, str]]
    """Parameters of each night_perception, by its name."""
    orders: Orders
    peers: tuple[str, ...] = ()
    """Modules of ``bench/peers``; each serves the camera of its own name."""


def sessions(
    *,
    short: bool = False,
    backend: str = 'auto',
    weights: Mapping[str, str] | None = None,
    peers: Sequence[str] = PEERS,
    soak: int = 1000,
) -> list[Session]:
    """
    Return the benchmark's sessions.

    ``weights`` are the node's parameters of that name, ``peers`` those to compare with, ``soak``
    the frames over which memory must not grow. ``short`` takes fewer rounds of everything.
    """
    chosen = {'weights.translator': 'translator', **(weights or {})}

    def node(cameras: tuple[str, ...], **more: str) -> dict[str, str]:
        names = ', '.join(f'"{camera}"' for camera in cameras)
        return {'cameras': f'[{names}]', 'route': 'night', 'backend': backend, **chosen, **more}

    def times(full: int, brief: int) -> int:
        return brief if short else full

    pace = 4.0 if short else 8.0
    # every network has to be loaded where any route may be taken
    everywhere = {
        'route': 'auto', 'router.table.dusk': 'night', 'router.table.night': 'translate',
    }  # fmt: skip
    found = [
        Session(
            name='one_camera',
            size=HD,
            nodes={'ours': node(('camera',))},
            orders=Orders(
                cameras=('camera',),
                turns=(
                    Turns(name='closed', contenders={'ours': ('camera',)}, rounds=times(120, 50)),
                    Turns(
                        name='everything', contenders={'ours': ('camera',)},
                        rounds=times(60, 25), topics=EVERYTHING,
                    ),
                ),
                paced=tuple(
                    Paced(name=f'{rate}_hz', cameras=('camera',), rate=rate, seconds=pace)
                    for rate in (10, 20, 30)
                ),
            ),
        ),
        Session(
            name='sustained',
            size=NHD,
            nodes={'ours': node(('camera',))},
            orders=Orders(
                cameras=('camera',),
                turns=tuple(
                    Turns(
                        name=name, contenders={'ours': ('camera',)}, rounds=times(4, 3),
                        frames=times(45, 25), window=2, topics=topics,
                    )
                    for name, topics in (
                        ('labels', ('labels', 'status')),
                        ('overlay', ('labels', 'status', 'overlay')),
                    )
                ),
            ),
        ),
        Session(
            name='eight_cameras',
            size=HD,
            nodes={'ours': node(ROUND)},
            orders=Orders(
                cameras=ROUND,
                turns=(
                    Turns(
                        name='closed', contenders={'one': ROUND[:1], 'eight': ROUND},
                        rounds=times(20, 10),
                    ),
                ),
            ),
        ),
        Session(
            name='all_networks',
            size=HD,
            nodes={'ours': node(('camera',), **everywhere)},
            orders=Orders(
                cameras=('camera',),
                turns=(
                    Turns(name='closed', contenders={'ours': ('camera',)}, rounds=times(100, 40)),
                ),
            ),
        ),
        Session(
            name='soak',
            size=TINY,
            nodes={'ours': node(('camera',), long_side='96', **everywhere)},
            orders=Orders(
                cameras=('camera',),
                turns=tuple(
                    Turns(
                        name=f'{share} %', contenders={'ours': ('camera',)}, rounds=1,
                        frames=max(soak // 5, 1), topics=EVERYTHING,
                    )
                    for share in (20, 40, 60, 80, 100)
                ),
            ),
        ),
    ]  # fmt: skip
    if peers:
        contenders: dict[str, tuple[str, ...]] = {name: (name,) for name in ('ours', *peers)}
        found.insert(
            1,
            Session(
                name='peers',
                size=HD,
                nodes={'ours': node(('ours',))},
                peers=tuple(peers),
                orders=Orders(
                    cameras=('ours', *peers),
                    turns=(
                        Turns(
                            name='throughput', contenders=contenders, rounds=times(10, 4),
                            frames=3, window=2,
                        ),
                    ),
                ),
            ),
        )  # fmt: skip
    return found
