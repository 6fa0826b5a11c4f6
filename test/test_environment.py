# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The thread pools of our processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize('first', ['nightseg_ros', 'numpy'])
def test_openblas_and_opencv_have_one_thread_once_a_backend_is_open(first: str) -> None:
    code = f"""
        import {first}
        import json
        import cv2
        from nightseg_ros.runtime.backends import open_backend
        import numpy
        open_backend('onnxruntime')
        import threadpoolctl
        print(json.dumps([cv2.getNumThreads()] + [
            pool['num_threads'] for pool in threadpoolctl.threadpool_info()
            if pool['internal_api'] == 'openblas'
        ]))
    """
    named = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS')
    environment = {name: value for name, value in os.environ.items() if name not in named}
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], env=environment, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    pools = json.loads(done.stdout.splitlines()[-1])
    assert len(pools) > 1 and set(pools) == {1}
