# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The process ``night_perception``, and what every process of a lifecycle node does.

Exit code 0 means that it was asked to stop; the launch file restarts it after any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from nightseg_ros.dds import profile_environment
from nightseg_ros.shared_memory import remove_orphans, remove_own

#: Seconds from a signal to the end of the process, whatever the networks are busy with.
DEADLINE = 1.0
#: As many errors in callbacks within ``ERROR_SECONDS`` end the process.
ERRORS = 20
ERROR_SECONDS = 10.0
#: mallopt(3), from malloc.h.
M_ARENA_MAX = -8


def main() -> None:
    """Run night_perception until SIGINT or SIGTERM."""

    def make() -> Any:
        from nightseg_ros.node.night_perception import NightPerception

        return NightPerception()

    serve(make)


def serve(make: Callable[[], Any]) -> None:
    """
    Run the node that ``make`` returns until SIGINT or SIGTERM.

    ``make`` imports what is heavy: until it is called, a signal already ends the process. The
    process exits here, with 1 where callbacks only fail.
    """
    _use_one_heap()
    os.environ.update(profile_environment())
    stop = threading.Event()
    _stop_on_signals(stop)

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from nightseg_ros.node.watchdog import Watchdog

    remove_orphans()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = make()
    watchdog = Watchdog(node.check, node.report_hang, node.longest)
    watchdog.start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    errors: deque[float] = deque(maxlen=ERRORS)
    code = 0
    while rclpy.ok() and not stop.is_set():
        try:
            # a signal interrupts the wait
            executor.spin_once(timeout_sec=0.2)
        except Exception:
            # one callback's error must not stop the node
            node.get_logger().error(f'error in a callback: {traceback.format_exc()}')
            errors.append(time.monotonic())
            if len(errors) == ERRORS and errors[-1] - errors[0] < ERROR_SECONDS:
                text = f'{ERRORS} errors in callbacks within {ERROR_SECONDS:g} s'
                node.get_logger().fatal(f'{text}; exiting with code 1')
                code = 1
                break
    node.stop(timeout=DEADLINE / 2)
    executor.shutdown(timeout_sec=0)
    node.destroy_node()
    watchdog.close()
    rclpy.try_shutdown()
    _end(code)


def _use_one_heap() -> None:
    """
    Let all threads share one heap, where the C library is glibc.

    Each thread would have its own, and memory freed in one does not serve the others: every
    configure would let the process grow by some megabytes (bench/lifecycle_cycles.py).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _stop_on_signals(stop: threading.Event) -> None:
    """
    Set ``stop`` on SIGINT and SIGTERM, and end the process ``DEADLINE`` seconds later at most.

    Python runs handlers between two steps of the main thread, which may be deep in the loading
    of a network; the wake-up descriptor is written to at once, and a thread waits for it.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)

    # holding both ends keeps them open
    ends = (reading, writing)
    threading.Thread(target=_watch, args=ends, name='nightseg deadline', daemon=True).start()


def _watch(reading: socket.socket, writing: socket.socket) -> None:
    """End the process some time after the first signal."""
    while reading.recv(1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    time.sleep(DEADLINE)
    _end(0)


def _end(code: int) -> None:
    """
    Exit at once.

    ``sys.exit`` takes the interpreter apart with the networks' libraries in it: that takes
    seconds in which no thread can watch the deadline, and never ends while a batch is computed
    (test_node_lifecycle.py, a signal during inference).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # where the node could not be destroyed in time
    remove_own()
    os._exit(code)


if __name__ == '__main__':
    main()
