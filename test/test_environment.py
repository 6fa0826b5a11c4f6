# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What our processes do to the machine around them: connections and threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny_weights import write_illumination, write_segmenter

# runs before anything else in the process and in its children; every connection and every look-up
# of a name is written down, refused or not
WATCH = """
import os, sys
def hook(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):
        where = arguments[-1] if event != 'socket.getaddrinfo' else arguments[0]
        host = where[0] if isinstance(where, tuple) else where
        if str(host) not in ('127.0.0.1', '::1', 'localhost') and not str(host).startswith('/'):
            with open(os.environ['NIGHTSEG_TEST_SOCKETS'], 'a') as log:
                log.write(f'{event} {arguments[1:]}\\n')
sys.addaudithook(hook)
"""


def watched(tmp_path: Path, *arguments: str) -> str:
    """Run Python with a watch on its connections; return those to other machines."""
    site = tmp_path / 'site'
    site.mkdir(exist_ok=True)
    (site / 'sitecustomize.py').write_text(WATCH)
    log = tmp_path / 'sockets.txt'
    path = os.pathsep.join(p for p in (str(site), os.environ.get('PYTHONPATH', '')) if p)
    # a home of its own: a consent to telemetry in the user's would hide the fault
    environment = {
        **os.environ, 'PYTHONPATH': path, 'NIGHTSEG_TEST_SOCKETS': str(log), 'HOME': str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return log.read_text() if log.exists() else ''


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    code = """
        import socket
        try:
            socket.create_connection(('192.0.2.1', 9), timeout=0.01)
        except OSError:
            pass
    """
    assert '192.0.2.1' in watched(tmp_path, '-c', textwrap.dedent(code))


@pytest.mark.parametrize('verb', ['predict', 'info'])
def test_the_command_line_opens_no_connection(tmp_path: Path, verb: str) -> None:
    import cv2
    import numpy as np

    if verb == 'info':
        assert not watched(tmp_path, '-m', 'nightseg_ros.cli.main', 'info')
        return
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((48, 64, 3), 90, np.uint8))
    weights = []
    for name in ('day', 'night'):
        path = write_segmenter(tmp_path / f'{name}.safetensors', seed=1)
        weights += [f'--weights-{name}', str(path)]
    light = write_illumination(tmp_path / 'illumination.safetensors')
    assert not watched(
        tmp_path, '-m', 'nightseg_ros.cli.main', 'predict', str(tmp_path / 'a.png'), '--out',
        str(tmp_path / 'out'), *weights, '--weights-illumination', str(light), '--backend',
        'openvino',
    )  # fmt: skip


@pytest.mark.parametrize('module', ['openvino', 'ray', 'torch.utils.tensorboard'])
def test_libraries_that_could_report_home_do_not(tmp_path: Path, module: str) -> None:
    # what they send is sent by a thread, which may need a moment; a connection is begun at once
    code = f'import nightseg_ros, {module}, time; time.sleep(1)'
    assert not watched(tmp_path, '-c', code)


@pytest.mark.parametrize('first', ['nightseg_ros', 'numpy'])
def test_openblas_has_one_thread_once_a_backend_is_open(first: str) -> None:
    code = f"""
        import {first}
        import json
        from nightseg_ros.runtime.backends import open_backend
        import numpy
        open_backend('onnxruntime')
        import threadpoolctl
        print(json.dumps([
            pool['num_threads'] for pool in threadpoolctl.threadpool_info()
            if pool['internal_api'] == 'openblas'
        ]))
    """
    environment = {k: v for k, v in os.environ.items() if k != 'OPENBLAS_NUM_THREADS'}
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], env=environment, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    pools = json.loads(done.stdout.splitlines()[-1])
    assert pools and set(pools) == {1}
