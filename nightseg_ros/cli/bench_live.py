# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A session of the benchmark: nodes and a probe as real ROS 2 processes."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from nightseg_ros.benchmark.sessions import Session
from nightseg_ros.cli.processes import Child, ProcessError
from nightseg_ros.dds import private_domain, profile_environment
from nightseg_ros.files import share_dir

#: Seconds for a session's nodes to load; the first run on a machine exports and compiles.
LOADING_S = 300.0


def run_session(session: Session, frames: Path, folder: Path) -> dict[str, Any]:
    """
    Start the session's nodes and the probe, and return what the probe measured.

    ``frames`` is the file of what the cameras send. Added is ``started`` (ns of the steady clock)
    by node. ``ProcessError`` tells which process failed and what it said last; no process outlives
    this call.
    """
    orders_file, result = folder / f'{session.name}.orders.json', folder / f'{session.name}.json'
    with private_domain() as domain, ExitStack() as stack:
        environ = {**os.environ, **domain, **profile_environment()}
        environ['ROS_LOG_DIR'] = str(folder / 'ros_log')
        peers = os.pathsep.join(
            filter(None, (str(share_dir() / 'bench'), environ.get('PYTHONPATH', '')))
        )

        def start(name: str, module: str, arguments: list[str], **more: str) -> Child:
            log = folder / f'{session.name}.{name}.log'
            child = Child(module, arguments, log=log, environ={**environ, **more})
            return stack.enter_context(child)

        children, started = {}, {}
        for name, parameters in session.nodes.items():
            started[name] = time.monotonic_ns()
            arguments = [f'-r__node:={name}', *(f'-p{k}:={v}' for k, v in parameters.items())]
            split = [part for text in arguments for part in (text[:2], text[2:])]
            children[name] = start(name, 'nightseg_ros.node.main', ['--ros-args', *split])
        for name in session.peers:
            started[name] = time.monotonic_ns()
            children[name] = start(name, f'peers.{name}', [name], PYTHONPATH=peers)
        orders = replace(
            session.orders,
            frames=str(frames),
            result=str(result),
            pids={name: child.pid for name, child in children.items()},
            patience=LOADING_S,
        )
        orders.write(orders_file)
        probe = start('probe', 'nightseg_ros.node.bench_probe', [str(orders_file)])
        while probe.code is None:
            for child in children.values():
                child.check()
            time.sleep(0.1)
        if probe.code != 0:
            words = '\n'.join(f'{n}:\n{child.last_words()}' for n, child in children.items())
            raise ProcessError(f'bench_probe failed:\n{probe.last_words()}\n{words}')
    found: dict[str, Any] = json.loads(result.read_text(encoding='utf-8'))
    return {**found, 'started': started}
