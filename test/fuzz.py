# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Fuzz one target, guided by coverage: ``python test/fuzz.py mcap -runs=1000000``.

``make fuzz`` runs all of them. What follows the target are libFuzzer's flags and inputs to run
once instead of fuzzing. It stops at the first crash, hang or growth and saves what caused it in
out/fuzz/TARGET-crashes. Crashes of Python are its exceptions, those of native code are signals.
"""

from pathlib import Path
import signal
import sys
import tempfile

import atheris

#: What is watched while it reads; the rest would only be slower.
_READERS = [
    'nightseg_ros.bags', 'nightseg_ros.config', 'nightseg_ros.perception', 'nightseg_ros.weights',
]  # fmt: skip

with atheris.instrument_imports(include=_READERS):
    import fuzz_targets


def main() -> None:
    """Seed the corpus and hand over to libFuzzer, which ends the process."""
    name, *flags = sys.argv[1:]
    target, _ = fuzz_targets.TARGETS[name]
    corpus, crashes = (Path('out/fuzz', folder) for folder in (name, f'{name}-crashes'))
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    # libFuzzer ends its process without a clean-up
    tempfile.tempdir = str(corpus.parent)
    seeds = fuzz_targets.samples(name)
    for number, content in enumerate(seeds):
        (corpus / f'sample-{number:03}').write_bytes(content)
    # seconds that an input may take, and MiB that the process may have
    given = [
        '-seed=1', '-timeout=10', '-rss_limit_mb=1500', f'-artifact_prefix={crashes}/',
        f'-max_len={3 * max(map(len, seeds))}', '-print_final_stats=1', '-verbosity=1', *flags,
    ]  # fmt: skip
    inputs = [] if any(not flag.startswith('-') for flag in flags) else [str(corpus)]
    print(f'{name}: {len(seeds)} samples, corpus {corpus}', flush=True)
    atheris.Setup([sys.argv[0], *given, *inputs], target)
    try:
        atheris.Fuzz()
    finally:
        # libFuzzer's timer would end the process before it has saved what caused a crash
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


if __name__ == '__main__':
    main()
