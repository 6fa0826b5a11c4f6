# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The folder of a bag: which files belong to it, and what its metadata.yaml promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.rosbag2.metadata import parse_qos

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.records import Channel, Damage
from nightseg_ros.bags.storage import ROS1_SUFFIXES, StorageFile
from nightseg_ros.config import load_yaml

METADATA = 'metadata.yaml'


@dataclass(frozen=True, kw_only=True, slots=True)
class BagFolder:
    """The files of a bag in the order of recording."""

    files: tuple[StorageFile, ...]
    promised: dict[Channel, int] | None = None
    """Messages by topic as metadata.yaml counts them, None without a readable one."""
    damage: tuple[Damage, ...] = ()

    @property
    def is_ros2(self) -> bool:
        """Whether the messages are serialised as ROS 2 does (CDR)."""
        return not any(file.suffix in ROS1_SUFFIXES for file in self.files)


def is_bag(path: Path) -> bool:
    """Tell a bag by its name: .mcap, .db3, .bag, or a folder with metadata.yaml or such files."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storages(path))
    return StorageFile.fits(path)


def open_folder(path: Path) -> BagFolder:
    """Look at a bag's folder or single file; ``BagError`` where there is none."""
    if not path.exists():
        raise BagError(f"bag '{path}' does not exist")
    if not path.is_dir():
        if not StorageFile.fits(path):
            raise BagError(f"'{path}' is no bag: its name ends in none of .mcap, .db3, .bag")
        return BagFolder(files=(StorageFile(path),))
    found = _storages(path)
    if not (path / METADATA).is_file():
        if not found:
            raise BagError(f"'{path}' is no bag: it holds no {METADATA}, *.mcap or *.db3")
        return BagFolder(files=tuple(map(StorageFile, found)))
    try:
        names, promised = _read(path / METADATA)
    # YAML of any shape may stand there
    except Exception as error:
        if not found:
            raise BagError(f"'{path / METADATA}' cannot be read, and no file beside it") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        damage = Damage(text=f'{METADATA} cannot be read ({reason}); the files are read without')
        return BagFolder(files=tuple(map(StorageFile, found)), damage=(damage,))
    files, missing = [], []
    for name in names:
        file = _lying(path, name)
        if file is None:
            missing.append(Damage(text=f'{name} is missing'))
        else:
            files.append(StorageFile(file))
    return BagFolder(files=tuple(files), promised=promised, damage=tuple(missing))


def _read(file: Path) -> tuple[list[str], dict[Channel, int]]:
    text = file.read_text(encoding='utf-8')
    content: dict[str, Any] = load_yaml(text, aliases=True)
    information = content['rosbag2_bagfile_information']
    counts: dict[Channel, int] = {}
    for entry in information['topics_with_message_count']:
        topic = entry['topic_metadata']
        channel = Channel(
            topic=str(topic['name']), type=str(topic['type']),
            qos=tuple(parse_qos(topic.get('offered_qos_profiles') or [])),
        )  # fmt: skip
        counts[channel] = counts.get(channel, 0) + int(entry['message_count'])
    # older versions wrote the bag's folder before the name
    names = [Path(name).name for name in information['relative_file_paths']]
    return names, counts


def _lying(folder: Path, name: str) -> Path | None:
    """Return a file by its name, also where somebody has unpacked or packed it since."""
    for candidate in (name, name.removesuffix('.zstd'), f'{name}.zstd'):
        path = folder / candidate
        if StorageFile.fits(path) and path.is_file():
            return path
    return None


def _storages(folder: Path) -> list[Path]:
    """Return the files of a ROS 2 bag by their numbers: drive_2 comes before drive_10."""
    files = {
        path.name: path
        for path in folder.iterdir()
        if StorageFile.fits(path)
        and StorageFile(path).suffix not in ROS1_SUFFIXES
        and path.is_file()
    }
    # a packed file beside its unpacked twin would be read twice
    names = [
        name
        for name in files
        if not name.endswith('.zstd') or name.removesuffix('.zstd') not in files
    ]
    return [files[name] for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    parts = re.split(r'(\d+)', name)
    return tuple((int(part), '') if part.isdigit() else (-1, part) for part in parts)
