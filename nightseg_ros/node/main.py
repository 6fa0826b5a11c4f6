# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The process ``night_perception``, and what every process of a lifecycle node does.

Exit code 0 means that it was asked to stop; the launch file restarts it after any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
import contextlib
import ctypes
import faulthandler
from importlib.util import find_spec
import logging
import os
import signal
import stat
import sys
import threading
import time
import traceback
from typing import Any

from nightseg_ros.dds import profile_environment
from nightseg_ros.files import LOG, use_log_folder
from nightseg_ros.node.watchdog import exit_now, Watchdog
from nightseg_ros.shared_memory import remove_orphans

#: Seconds from a signal to the end of the process, whatever the networks are busy with.
DEADLINE = 1.0
#: Seconds for the node to be made, after which its watchdog ends what hangs.
START = 60.0
#: As many errors in callbacks within ``ERROR_SECONDS`` end the process.
ERRORS = 20
ERROR_SECONDS = 10.0
#: mallopt(3), from malloc.h.
M_ARENA_MAX = -8


def main() -> None:
    """Run night_perception until SIGINT, SIGTERM or SIGHUP."""

    def make() -> Any:
        from nightseg_ros.node.night_perception import NightPerception

        return NightPerception()

    serve('night_perception', make)


def serve(name: str, make: Callable[[], Any]) -> None:
    """
    Run the node ``name`` that ``make`` returns until a signal; print help if asked to.

    ``make`` imports what is heavy: until it is called, a signal already ends the process. The
    process exits here, with 1 where callbacks only fail.
    """
    if find_spec('rclpy') is None:
        print(f'{name}: this needs ROS 2 (rclpy): source a ROS 2 setup file', file=sys.stderr)
        sys.exit(2)
    if {'-h', '--help'} & {*sys.argv[1:]}:
        from nightseg_ros.node.parameters import help_text

        # a reader that leaves early ends it quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(help_text(name))
        return
    _never_wait_for_a_reader()
    _use_one_heap()
    # OpenVINO's converters: 10 MB and as much time as all the rest of its import
    sys.modules.setdefault('openvino.tools.ovc', None)  # type: ignore[arg-type]
    os.environ.update(profile_environment())
    stop = _stop_on_signals()

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    remove_orphans()
    use_log_folder()
    # DDS, too, can hang over what others left; the watchdog's own call replaces this
    faulthandler.dump_traceback_later(START, exit=True, file=2)
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        if rest := remove_ros_args(sys.argv)[1:]:
            raise RuntimeError(f"'{' '.join(rest)}' is no argument of it")
    except RuntimeError as error:
        # a file of parameters that is missing or no YAML, an argument that nobody knows
        print(f'{name}: {error}; `{name} --help` shows how it is called', file=sys.stderr)
        exit_now(2)
    node = make()
    LOG.addHandler(_NodeHandler(node.get_logger()))
    watchdog = Watchdog(node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    errors: deque[float] = deque(maxlen=ERRORS)
    code = 0
    while rclpy.ok() and not stop.is_set():
        try:
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
    if not stop.is_set():
        # a signal would have set it
        deadline = threading.Timer(DEADLINE, exit_now, (code,))
        deadline.daemon = True
        deadline.start()
    node.stop(timeout=DEADLINE / 2)
    executor.shutdown(timeout_sec=0)
    node.destroy_node()
    watchdog.close()
    rclpy.try_shutdown()
    exit_now(code)


class _NodeHandler(logging.Handler):
    """Hands warnings of the package to a node's logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.warning(record.getMessage())


def _never_wait_for_a_reader() -> None:
    """
    Let output that finds no room be lost: it stands in the log file all the same.

    Where whoever reads the log has stopped, the pipe fills, and the next line would hold up its
    thread, with rclpy's lock of the log, for good. A descriptor that came closed would be that of
    the next file that is opened.
    """
    for descriptor in (1, 2):
        try:
            kind = os.fstat(descriptor).st_mode
        except OSError:
            own = os.open(os.devnull, os.O_WRONLY)
        else:
            if stat.S_ISSOCK(kind):
                # such as that of the system's journal
                os.set_blocking(descriptor, False)
            if stat.S_ISSOCK(kind) or stat.S_ISREG(kind):
                continue
            try:
                # opened anew: the flag would hold for every process that shares the old one
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
                own = os.open(f'/proc/self/fd/{descriptor}', flags)
            except OSError:
                continue
        os.dup2(own, descriptor)
        if own != descriptor:
            os.close(own)


def _use_one_heap() -> None:
    """
    Let all threads share one heap, where the C library is glibc.

    Each thread would have its own, and memory freed in one does not serve the others: over thirty
    cycles of bench/lifecycle_cycles.py the process's own memory goes from 77 to 85 MB and once to
    114 (OpenVINO; onnxruntime 63 to 72, with one heap 62 to 64), and its check and the soak's
    allow 1 %. The library reads an environment variable for this only before Python has started.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _stop_on_signals() -> threading.Event:
    """
    Return what SIGINT, SIGTERM and SIGHUP (the terminal was closed) set.

    The process ends ``DEADLINE`` seconds later at most.

    A thread takes them: Python's own handlers run between two steps of the main thread, which may
    be deep in the loading of a network.
    """
    stop, signals = threading.Event(), {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # started by nohup, to outlive its terminal
        signals.remove(signal.SIGHUP)
    # every thread that starts later inherits this
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        signal.sigwait(signals)
        stop.set()
        time.sleep(DEADLINE)
        exit_now(0)

    threading.Thread(target=wait, name='nightseg deadline', daemon=True).start()
    return stop


if __name__ == '__main__':
    main()
