# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Run the ROS tests again and again beside busy loops: does any of them fail by chance?

``python test/repeat_ros.py --rounds 20 --loops 4 [pytest's arguments]``; exits with 1 after a
failure. Arguments such as ``test/test_node.py`` choose the tests.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def main() -> int:
    """Return 0 where every round passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--loops', type=int, default=4, help='processes that only take time')
    given, arguments = parser.parse_known_args()
    loops = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])
             for _ in range(given.loops)]  # fmt: skip
    failed: Counter[str] = Counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(1, given.rounds + 1):
                report, begun = Path(folder) / f'{number}.xml', time.monotonic()
                command = ['-m', 'pytest', '-q', '-m', 'ros', f'--junitxml={report}', *arguments]
                code = subprocess.call([sys.executable, *command])
                cases = list(ElementTree.parse(report).iter('testcase'))
                bad = [f'{case.get("classname")}::{case.get("name")}' for case in cases
                       if {'failure', 'error'} & {child.tag for child in case}]  # fmt: skip
                failed.update(bad or (['pytest itself'] if code else []))
                print(f'round {number}: {len(cases)} tests, {len(bad)} failed, '
                      f'{time.monotonic() - begun:.0f} s', flush=True)  # fmt: skip
    finally:
        for loop in loops:
            loop.kill()
    for name, count in failed.most_common():
        print(f'{count} of {given.rounds} rounds: {name}')
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
