# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights that are damaged, foreign or replaced, and disks that are full."""

from __future__ import annotations

import os
from pathlib import Path
import resource
import signal
import subprocess
import sys

from nightseg_ros.weights import list_weights
import numpy as np
import pytest
from ros_harness import Camera, picture, pixels_of, served
from tiny_data import imwrite
from tiny_weights import LICENSE

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_weights_that_are_unfit_are_refused_and_loaded_ones_outlive_their_file(
    parameters, tmp_path
):
    """Of the many ways to be unfit one: test_weights.py has the others."""
    good = Path(parameters['weights.night']).read_bytes()
    path = tmp_path / 'night.safetensors'
    path.write_bytes(good)
    list_weights(path)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    given = {**parameters, 'autostart': False, 'weights.night': str(path)}
    with served(tmp_path, given, state='unconfigured') as client:
        assert not client.transition('configure')
        client.diagnosed('node', 'ERROR', 'was damaged or replaced')
        assert "route 'night'" in client.status('node')[1]
        assert client.state() == 'unconfigured'

        path.write_bytes(good)
        client.start(route='night')
        # replaced, cut and removed while it is used: what was loaded stays
        camera = Camera(client).connect()
        # the licence is said once a configure that succeeds
        assert client.process.text.count(f'night.safetensors: {LICENSE}') == 1
        masks = set()
        for harm in (None, b'', b'other', good[:99], 'gone'):
            if isinstance(harm, bytes):
                # in place, as a rename would keep what is open
                os.truncate(path, 0)
                with path.open('r+b') as file:
                    file.write(harm)
            elif harm:
                path.unlink()
            masks.add(pixels_of(camera.serve(picture(90, 120, seed=1))).tobytes())
        assert len(masks) == 1
        # and the next configure sees what is there now
        client.unconfigure()
        assert not client.transition('configure')
        client.diagnosed('node', 'ERROR', 'not found')
        client.process.ends(signal.SIGINT)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('render', '--out', 'OUT', '--count', '1', '--size', '320', '180'), 'is the disk full?'),
        (('bag', 'make', 'IN', '--out', 'OUT'), 'File too large'),
    ],
    ids=['render', 'bag make'],
)
def test_a_disk_that_is_full_is_told_and_leaves_nothing_that_looks_whole(
    tmp_path, arguments, words
):
    pictures, out = tmp_path / 'in', tmp_path / 'out'
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        imwrite(pictures / f'{index}.png', noise)
    places = {'OUT': str(out), 'IN': str(pictures)}

    def full() -> None:
        # what a write beyond it gets is an error like that of a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, '-c', 'import signal, sys; '
         'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
         'from nightseg_ros.cli.main import main; sys.exit(main())',
         *(places.get(word, word) for word in arguments)],
        preexec_fn=full, capture_output=True, text=True, env={**os.environ, 'TMPDIR': '/dev/shm'},
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    assert words in done.stderr
    assert not out.exists(), list(out.rglob('*'))
