# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What may be removed from /dev/shm, and what may not: with files made for it."""

from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import subprocess
import sys
import time

from nightseg_ros.shared_memory import held_locks, remove_orphans, remove_own
import pytest

SEGMENT = 'fastrtps_0123456789abcdef'
PORT = 'fastdds_port7411'
#: A semaphore of glibc that is free: its value is 1 (on 64 bits, little endian).
FREE = (1).to_bytes(32, 'little')


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a segment and a port of a dead process."""
    for name in (SEGMENT, PORT):
        (tmp_path / name).write_bytes(bytes(4096))
        (tmp_path / f'{name}_el').touch()
    (tmp_path / f'sem.{PORT}_mutex').write_bytes(FREE)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def process(code: str, *arguments: object) -> Iterator[None]:
    """Run Python code until it has said a line, and then beside the block."""
    command = [sys.executable, '-c', code + "\nprint('up', flush=True)\ninput()"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b'up\n'
        yield
        child.kill()


def test_segments_and_ports_of_the_dead_are_removed(folder):
    assert remove_orphans(folder, settled=0) == [PORT, SEGMENT]
    assert names(folder) == set()
    assert remove_orphans(folder, settled=0) == remove_orphans(folder / 'nowhere') == []
    # a lock alone
    (folder / f'{SEGMENT}_el').touch()
    assert remove_orphans(folder, settled=0) == [SEGMENT]
    assert names(folder) == set()


def test_what_is_young_is_left(folder):
    before = names(folder)
    assert remove_orphans(folder) == []
    for path in folder.iterdir():
        # the change of this very time stays
        os.utime(path, (time.time() - 100,) * 2)
    assert remove_orphans(folder) == []
    assert names(folder) == before
    time.sleep(1.1)
    # young for as long as this machine takes
    os.utime(folder / f'{SEGMENT}_el', (time.time() + 100,) * 2)
    assert remove_orphans(folder, settled=1.0) == [PORT]


#: What a process may do with a segment or its lock.
LOCK = "import fcntl, sys\nf = open(sys.argv[1] + '_el')\nfcntl.flock(f, fcntl.LOCK_"
OPEN = "import sys\nf = open(sys.argv[1], '"
# Python's own mmap would keep the file open besides
MAP = """b', buffering=0)
import ctypes, mmap
m = ctypes.CDLL(None).mmap
m.restype = ctypes.c_void_p
m.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
assert m(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, f.fileno(), 0) > 0
f.close()"""


@pytest.mark.parametrize(
    'code',
    [f'{LOCK}EX)', f'{LOCK}SH)', f"{OPEN}rb')", f"{OPEN}r+b')", f'{OPEN}r{MAP}', f'{OPEN}r+{MAP}'],
    ids=['locked', 'locked with others', 'open', 'open to write', 'mapped', 'mapped to write'],
)
def test_what_is_locked_open_or_mapped_is_left(folder, code):
    with process(code, folder / SEGMENT):
        assert remove_orphans(folder, settled=0) == [PORT]
        assert names(folder) == {SEGMENT, f'{SEGMENT}_el'}
    assert remove_orphans(folder, settled=0) == [SEGMENT]


def test_a_port_that_somebody_opens_now_is_left(folder):
    with (folder / PORT).open():
        # another file description, even of this process
        assert remove_orphans(folder, settled=0) == [SEGMENT]
    # its semaphore was tried and is free again
    semaphore = folder / f'sem.{PORT}_mutex'
    assert semaphore.read_bytes() == FREE
    for held in (bytes(32), b'short'):
        semaphore.write_bytes(held)
        assert remove_orphans(folder, settled=0) == []
    semaphore.unlink()
    assert remove_orphans(folder, settled=0) == []
    assert names(folder) == {PORT, f'{PORT}_el'}


def test_a_port_without_a_lock_is_removed_where_nobody_has_it(folder):
    for name in (SEGMENT, PORT):
        (folder / f'{name}_el').unlink()
    assert remove_orphans(folder) == []
    with process(f'{OPEN}r+{MAP}', folder / PORT):
        assert remove_orphans(folder, settled=0) == []
    semaphore = folder / f'sem.{PORT}_mutex'
    semaphore.write_bytes(bytes(32))
    assert remove_orphans(folder, settled=0) == []
    semaphore.write_bytes(FREE)
    assert remove_orphans(folder, settled=0) == [PORT]
    assert names(folder) == {SEGMENT}


def test_an_empty_file_of_a_killed_maker_is_removed(folder):
    torn = folder / 'fastrtps_port7413'
    torn.touch()
    with torn.open():
        assert remove_orphans(folder, settled=0) == [PORT, SEGMENT]
    os.utime(torn, (time.time() + 100,) * 2)
    assert remove_orphans(folder) == []
    os.utime(torn)
    time.sleep(1.1)
    assert remove_orphans(folder) == [torn.name]


def test_nothing_else_is_touched(folder):
    others = {
        'fastrtps_0123', 'fastrtps_0123_el', f'x{SEGMENT}', f'x{SEGMENT}_el', f'{SEGMENT}_el_el',
        'fastrtps_port_el', 'fastrtps_portx', 'sem.other', 'fastrtps_ffffffffffffffff',
        'cyclone_0123456789abcdef_el', 'fastrtps_0123456789ABCDEF_el', '.ses', '_el', '..el',
        f'{SEGMENT}_el.bak',
    }  # fmt: skip
    for name in others:
        (folder / name).write_bytes(b'x')
    victim = folder / 'victim'
    victim.write_bytes(b'x')
    (folder / 'fastrtps_aaaaaaaaaaaaaaaa').symlink_to(victim)
    (folder / 'fastrtps_aaaaaaaaaaaaaaaa_el').touch()
    (folder / 'fastrtps_bbbbbbbbbbbbbbbb_el').symlink_to(victim)
    (folder / 'fastrtps_cccccccccccccccc_el').mkdir()
    before = names(folder)
    assert remove_orphans(folder, settled=0, only=()) == []
    assert names(folder) == before
    assert remove_orphans(folder, settled=0) == [PORT, SEGMENT]
    gone = {SEGMENT, f'{SEGMENT}_el', PORT, f'{PORT}_el', f'sem.{PORT}_mutex'}
    assert names(folder) == before - gone


def test_files_of_another_user_are_left(folder):
    if os.geteuid() != 0:
        pytest.skip('only root may give a file away')
    os.chown(folder / SEGMENT, 12345, -1)
    assert remove_orphans(folder, settled=0) == [PORT]


def test_a_process_removes_what_it_owns_itself(folder):
    with (folder / f'{SEGMENT}_el').open() as lock, (folder / f'{PORT}_el').open() as shared:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(shared, fcntl.LOCK_SH)
        assert {path.name for path, _ in held_locks('self', folder)} == {
            f'{SEGMENT}_el', f'{PORT}_el',
        }  # fmt: skip
        with process(f'{LOCK}SH)', folder / PORT):
            assert remove_own(folder) == [SEGMENT]
        fcntl.flock(shared, fcntl.LOCK_SH)
        assert remove_own(folder) == [PORT]
    assert names(folder) == set()
