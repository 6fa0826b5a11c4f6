# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Ends the process that started it where not even its watchdog runs any more.

A library that hangs may hold the interpreter's lock, so that this is a process of its own, which
imports only what it needs. It reads on its standard input how many seconds may pass until the next
line, and counts only those in which the watched process could run: not while that is stopped, nor
while both are. Its arguments: the process's id, and the descriptor of a full pipe. A thread of
faulthandler's, which needs no interpreter, waits there to write all stacks and then exits with
code 1: to read from the pipe lets it go on.
"""

import os
import select
import sys
import time

#: Seconds between two looks.
TICK = 0.5
#: Seconds for the stacks, after which the process is killed.
LAST = 5.0


def main(pid: int, pipe: int) -> None:
    """Wait for the end of the process, or bring it about."""
    left, begun = float('inf'), time.monotonic()
    while left > 0:
        lines = b''
        if select.select([0], [], [], TICK)[0]:
            # more than a pipe holds: a part of a line would be another number
            lines = os.read(0, 1 << 20)
            if not lines:
                return
        now = time.monotonic()
        # a longer gap is one in which this process could not run either
        left -= 0 if _stopped(pid) else min(now - begun, 2 * TICK)
        begun = now
        if lines:
            left = float(lines.split()[-1])
    end = time.monotonic() + LAST
    while (wait := end - time.monotonic()) > 0 and select.select([pipe], [], [], wait)[0]:
        content = os.read(pipe, 4096)
        if not content:
            return
        try:
            # what had filled the pipe is zeros
            os.write(2, content.replace(b'\0', b''))
        except OSError:
            # who reads the log has stopped, or gone
            continue
    os.kill(pid, 9)


def _stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by a signal or a debugger."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] in 'Tt'
    except OSError:
        return False


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]))
