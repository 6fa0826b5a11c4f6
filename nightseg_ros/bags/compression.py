# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Unpack what bags are packed with, as far as it goes.

Sizes are limited: a few damaged bytes can claim to be gigabytes.
"""

from __future__ import annotations

import bz2
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Bytes of the largest message or chunk that is unpacked.
MAX_BYTES = 2**28
_STEP = 2**16
#: Bytes of the disk that unpacking a file leaves free.
_RESERVE = 2**29
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

# both come with rosbags
_zstd: Any = importlib.import_module(
    'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
)
_lz4: Any = importlib.import_module('lz4.frame')

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    'zstd': _zstd.ZstdDecompressor,
    'lz4': _lz4.LZ4FrameDecompressor,
    'bz2': bz2.BZ2Decompressor,
}
#: Names of compressions, '' and 'none' being none at all.
COMPRESSIONS = ('', 'none', *_DECOMPRESSORS)


def unpack(data: bytes, compression: str, size: int) -> tuple[bytes, bool]:
    """
    Return at most ``size`` unpacked bytes, and whether they are all that was packed.

    Damaged or cut data gives what lies before the damage. ``ValueError`` for a compression that
    is not known here and for a size above ``MAX_BYTES``.
    """
    if size > MAX_BYTES:
        raise ValueError(f'{size} bytes are claimed; {MAX_BYTES} are the most')
    if compression in ('', 'none'):
        return data[:size], len(data) == size
    if compression not in _DECOMPRESSORS:
        raise ValueError(f"compression '{compression}' is not known")
    decompressor = _DECOMPRESSORS[compression]()
    parts: list[bytes] = []
    done = at = 0
    while done < size and not decompressor.eof:
        fed = data[at : at + _STEP] if decompressor.needs_input else b''
        at += len(fed)
        if decompressor.needs_input and not fed:
            break
        try:
            part = decompressor.decompress(fed, size - done)
        except Exception:
            # each library has errors of its own for the one thing: no more can be read
            return b''.join(parts), False
        parts.append(part)
        done += len(part)
    return b''.join(parts), done == size


def unpack_message(data: bytes) -> bytes:
    """
    Return a message that was packed on its own (compression mode 'message'), others untouched.

    Serialised messages (CDR) begin with a zero, so they are not mistaken for packed ones.
    """
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        size = _zstd.get_frame_info(data).decompressed_size
    except Exception:
        return data
    unpacked, whole = unpack(data, 'zstd', MAX_BYTES if size is None else min(size, MAX_BYTES))
    return unpacked if whole or size is None else data


def unpack_file(source: Path, target: Path) -> str:
    """
    Unpack a zstd file; return '' or, where it breaks off, why. What lies before is kept.

    It stops before the disk is full: a file of kilobytes can stand for one of terabytes.
    """
    with _zstd.open(source, 'rb') as packed, target.open('wb') as unpacked:
        while True:
            try:
                # read() would lose the bytes before the damage
                part = packed.read1(_STEP)
            except EOFError:
                return 'the compressed file ends too early'
            except _zstd.ZstdError as error:
                return f'the compressed file is damaged: {error}'
            if not part:
                return ''
            if shutil.disk_usage(target.parent).free < _RESERVE:
                return f'the disk has no room for it, after {unpacked.tell()} unpacked bytes'
            unpacked.write(part)
