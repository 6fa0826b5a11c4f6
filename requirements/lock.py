# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Write requirements/lock/: every version with the hashes of all its files, for LOCKED=1.

``make lock`` calls it with the Python whose environment holds uv. The locks hold for Linux and
CPython 3.10 to 3.14 at once, by markers. Torch comes twice: cpu.txt names the builds for CPUs that
lie in PIP_FIND_LINKS, cuda.txt the one of the index with all that it needs; install.sh takes the
first that it can get.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile

HERE = Path(__file__).parent
LOCK = HERE / 'lock'
BASE = ('runtime', 'torch', 'onnx', 'train', 'test', 'fleet', 'lint')
DISTROS = ('jazzy', 'kilted')
CUDA = re.compile(r'(nvidia|cuda)-|(torch|triton)==')
HEAD = '# Written by requirements/lock.py, `make lock`; not to be edited.\n'
#: Hidden from uv: what lies around here lies nowhere else.
LOCAL = 'PIP_FIND_LINKS'


def main() -> int:
    """Resolve, sort into files, write."""
    LOCK.mkdir(exist_ok=True)
    base = _resolve(*(HERE / f'{name}.txt' for name in BASE), keep=('base', 'cuda'))
    cuda = {name: block for name, block in base.items() if CUDA.match(name)}
    _write('cuda', cuda)
    _write('base', {name: block for name, block in base.items() if name not in cuda})
    _write_cpu(next(name for name in cuda if name.startswith('torch==')))
    with tempfile.TemporaryDirectory() as folder:
        fixed = Path(folder) / 'base.txt'
        fixed.write_text('\n'.join(base.values()) + '\n', encoding='utf-8')
        for distro in DISTROS:
            ros = HERE / f'ros-{distro}.txt'
            found = _resolve(ros, '-c', fixed, keep=('base', ros.stem))
            _write(ros.stem, {n: b for n, b in found.items() if n not in base})
    return 0


def _resolve(*inputs: Path | str, keep: tuple[str, ...]) -> dict[str, str]:
    """Return 'name==version ; marker' → its lines; versions of an earlier lock are kept."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'lock.txt'
        earlier = [LOCK / f'{name}.txt' for name in keep]
        if all(file.exists() for file in earlier) and '--upgrade' not in sys.argv:
            out.write_bytes(b''.join(file.read_bytes() for file in earlier))
        environ = {key: value for key, value in os.environ.items() if key != LOCAL}
        command = [
            sys.executable, '-m', 'uv', 'pip', 'compile', '--quiet', '--universal',
            '--python-version', '3.10', '--generate-hashes', '--no-annotate', '--no-header',
            '-c', str(HERE / 'constraints.txt'), '-o', str(out), *map(str, inputs),
        ]  # fmt: skip
        subprocess.run(command, check=True, env=environ, cwd=HERE.parent)
        text = out.read_text(encoding='utf-8')
    blocks = [block.strip() for block in re.split(r'\n(?=[A-Za-z])', text) if block.strip()]
    return {
        block.splitlines()[0].removesuffix('\\').strip(): block
        for block in blocks
        if "sys_platform == 'win32'" not in block.splitlines()[0]
        and "sys_platform == 'emscripten'" not in block.splitlines()[0]
    }


def _write_cpu(pin: str) -> None:
    wheels = sorted(Path(os.environ.get(LOCAL, '.')).glob(f'{pin.replace("==", "-")}+cpu-*.whl'))
    if not wheels:
        print('cpu.txt: left as it is; PIP_FIND_LINKS has no torch for CPUs')
        return
    lines = [f'    --hash=sha256:{hashlib.sha256(w.read_bytes()).hexdigest()}' for w in wheels]
    _write('cpu', {pin: ' \\\n'.join([f'{pin}+cpu', *lines])})


def _write(name: str, blocks: dict[str, str]) -> None:
    text = HEAD + ''.join(f'{block}\n' for block in blocks.values())
    (LOCK / f'{name}.txt').write_text(text, encoding='utf-8')
    print(f'{name}.txt: {len(blocks)} packages')


if __name__ == '__main__':
    sys.exit(main())
