# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Fuzz one target, guided by coverage: ``python test/fuzz.py mcap --runs 1000000``.

``make fuzz`` runs all of them. libFuzzer stops at the first crash, hang (--timeout) or growth
(--memory) and saves what caused it in OUT/TARGET-crashes; giving that file instead of --runs runs
it once more. Crashes of Python are its exceptions, those of native code are signals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import signal
import sys
import tempfile
import time

import atheris

#: What is watched while it reads; the rest would only be slower.
_READERS = [
    'nightseg_ros.bags', 'nightseg_ros.config', 'nightseg_ros.perception', 'nightseg_ros.weights',
]  # fmt: skip

with atheris.instrument_imports(include=_READERS):
    import fuzz_targets


def main() -> None:
    """Seed the corpus and hand over to libFuzzer, which ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('target', choices=fuzz_targets.TARGETS)
    parser.add_argument('again', nargs='*', help='inputs to run once, instead of fuzzing')
    parser.add_argument('--runs', type=int, default=1_000_000)
    parser.add_argument('--seconds', type=int, default=0, help='stop earlier; 0: only by --runs')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--timeout', type=int, default=10, help='seconds that an input may take')
    parser.add_argument('--memory', type=int, default=1500, help='MiB that the process may have')
    parser.add_argument('--out', type=Path, default=Path('out/fuzz'))
    options = parser.parse_args()
    corpus = options.out / options.target
    crashes = options.out / f'{options.target}-crashes'
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    # libFuzzer ends its process without a clean-up
    tempfile.tempdir = str(options.out)
    target, _ = fuzz_targets.TARGETS[options.target]
    seeds = fuzz_targets.samples(options.target)
    for number, content in enumerate(seeds):
        (corpus / f'sample-{number:03}').write_bytes(content)
    flags = [
        f'-runs={options.runs}', f'-seed={options.seed}', f'-timeout={options.timeout}',
        f'-rss_limit_mb={options.memory}', f'-artifact_prefix={crashes}/',
        f'-max_len={3 * max(map(len, seeds))}', f'-max_total_time={options.seconds}',
        '-print_final_stats=1', '-verbosity=1',
    ]  # fmt: skip
    print(f'{options.target}: {len(seeds)} samples, corpus {corpus}', flush=True)
    started = time.monotonic()
    inputs = options.again or [str(corpus)]
    atheris.Setup([sys.argv[0], *flags, *inputs], target)
    try:
        atheris.Fuzz()
    finally:
        # libFuzzer's timer would end the process before it has saved what caused a crash
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        print(f'{options.target}: {time.monotonic() - started:.0f} s', flush=True)


if __name__ == '__main__':
    main()
