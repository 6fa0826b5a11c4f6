# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The thread pools of the process that no backend owns.

The estimator multiplies small matrices. OpenBLAS would wake a thread a core for each and let them
spin, on cores that the network needs: a third of a frame's time on two cores.
"""

from __future__ import annotations

import sys


def limit_threads() -> None:
    """
    Give OpenBLAS one thread; calling it again is harmless.

    The package sets ``OPENBLAS_NUM_THREADS`` when it is imported, which is too late where numpy
    has been imported before it.
    """
    if 'numpy' not in sys.modules:
        return
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == 'openblas' and library.num_threads != 1:
            library.set_num_threads(1)
