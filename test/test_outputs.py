# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a tool may replace, and names that libraries take for more than a path."""

from collections.abc import Callable
import os
from pathlib import Path
import shutil
from typing import Any

import cv2
from nightseg_ros.bags.reader import BagError, BagReader
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.source import open_source
from nightseg_ros.node.camera import EgoMask
from nightseg_ros.outputs import OutputError, whole_folder
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.video import VideoWriter
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from tiny_data import files_of, imwrite

#: Names that SQLite, OpenCV, FFmpeg, a glob, a data-set spec or an encoder would stumble over.
ODD = [
    'drive #3', 'what?', 'run%20a', 'a%03d', 'file:x', 'rtsp:cam', 'a:night', '-dash', '[x]*',
    '~home', 'new\nline', 'b\udcff\udcfed', 'blank ',
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    """Return a folder of three pictures."""
    folder = tmp_path / 'pictures'
    for index in range(3):
        picture = np.full((24, 32, 3), 60 * index, np.uint8)
        imwrite(folder / f'p{index}.png', picture)
    return folder


def make(pictures: Path, out: Path, *more: str) -> int:
    """Run bag make."""
    return main(['bag', 'make', str(pictures), '--rate', '10', f'--out={out}', *more])


def count(bag: Path) -> int:
    """Return how many messages a bag gives."""
    with BagReader(bag) as reader:
        found = sum(1 for _ in reader.records())
        assert not reader.read_errors()
    return found


WEIGHTS = '--weights-day rendered_day --weights-night rendered_night --backend torch'
OWN = [
    # a folder of something else, a file, and work that another tool has begun
    ('bag make {pictures} --rate 10 --out {home} --force', 'did not write'),
    ('render --count 1 --out {home} --force', 'did not write'),
    ('synthesize --data folder:{set} --ratio 1 --out {home} --force', 'did not write'),
    ('record {home} --force', 'did not write'),
    ('bag make {pictures} --rate 10 --out {home}/thesis.txt --force', 'is a file'),
    ('bag make {pictures} --rate 10 --out {home}/bag --force', 'bag.partial'),
    # pictures and labels of the user's own with names such as results have
    ('data extract {drive} --out {drive} --rate 10 --every 0 --force', 'input'),
    ('data extract {drive} --out {other} --rate 10 --every 0 --force', 'did not write'),
    (f'predict {{set}}/images --out {{set}} {WEIGHTS}', 'labels'),
    ('translate {drive} --out {set} --weights translator', 'images'),
    ('demo --keep-bag --out {home}', 'did not write'),
    (f'evaluate --dataset folder:{{set}} --save-labels --out {{set}} {WEIGHTS}', 'labels'),
    # files of theirs with such names
    (f'predict {{pictures}} --out {{home}} {WEIGHTS}', "predictions.jsonl' is a file"),
    (f'evaluate {{pictures}} --out {{home}} {WEIGHTS}', "metrics.json' is a file"),
    ('translate {pictures} --out {home} --weights translator', "contact_sheet.jpg' is a file"),
    # the input itself
    ('bag predict {bag} --out {bag} --force', 'is the input'),
    ('bag predict {bag} --out {link} --force', 'is the input'),
    ('bag predict {bag}/bag.mcap --out {bag} --force', 'holds the input'),
    # a second run would find it there
    ('bag predict {bag} --out {link}/new', 'lies in the input'),
    ('paint {bag} --out {bag} --force', 'is the input'),
    ('paint {bag}/bag.mcap --out {bag} --force', 'holds the input'),
    ('run {drive} --fps 10 --out {drive}/drive_0000.png', 'lies in the input'),
]


@pytest.mark.parametrize(('command', 'words'), OWN)
def test_force_leaves_what_the_tool_did_not_write(tmp_path, pictures, command, words, capsys):
    root = tmp_path / 'root'
    for folder in ('home/bag.partial/replaced', 'home/bags/drive', 'drive', 'other', 'set/labels'):
        (root / folder).mkdir(parents=True)
    for file in (
        'thesis.txt', 'manifest.json', 'bag.partial/replaced/mine', 'bags/drive/mine',
        'predictions.jsonl', 'metrics.json', 'contact_sheet.jpg',
    ):  # fmt: skip
        (root / 'home' / file).write_text('{}')
    shutil.copytree(pictures, root / 'set' / 'images')
    for index, path in enumerate(sorted(pictures.iterdir())):
        imwrite(root / 'set' / 'labels' / path.name, np.zeros((24, 32), np.uint8))
        for folder in ('drive', 'other'):
            shutil.copy(path, root / folder / f'drive_{index:04d}.png')
    assert make(pictures, root / 'bag') == 0
    (root / 'link').symlink_to(root / 'bag')
    before = files_of(root)
    places = {path.name: path for path in (*root.iterdir(), pictures)}
    assert main(command.format(**places).split()) == 2
    assert words in capsys.readouterr().err
    assert files_of(root) == before


def test_force_leaves_a_bag_with_other_files_and_one_that_was_recorded(tmp_path, pictures):
    mixed, recorded = tmp_path / 'mixed', tmp_path / 'recorded'
    assert make(pictures, mixed) == 0
    (mixed / 'notes.txt').write_text('rain from 10:42 on')
    types = get_typestore(Stores.ROS2_JAZZY)
    with Writer(recorded, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        text = bag.add_connection('/text', 'std_msgs/msg/String', typestore=types)
        message = types.types['std_msgs/msg/String'](data='x')
        bag.write(text, 1, types.serialize_cdr(message, 'std_msgs/msg/String'))
    for bag_there in (mixed, recorded):
        before = files_of(bag_there)
        assert make(pictures, bag_there, '--force') == 2
        assert files_of(bag_there) == before


def test_an_old_bag_comes_back_that_a_kill_left_without_its_name(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_value('/x', 'old', 1)
    (tmp_path / 'bag.partial').mkdir()
    (tmp_path / 'bag').rename(tmp_path / 'bag.partial' / 'replaced')
    with pytest.raises(BagError, match='exists'):
        BagWriter(tmp_path / 'bag')
    assert count(tmp_path / 'bag') == 1


def write_whole(
    out: Path, meanwhile: Callable[[], object] = lambda: None, *, force: bool = True
) -> None:
    with whole_folder(
        out, 'a result', lambda path: path.name == 'old', force=force, error=OutputError
    ) as hidden:
        (hidden / 'new').touch()
        meanwhile()


def test_a_folder_takes_the_place_that_a_link_leads_to(tmp_path, monkeypatch):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    write_whole(tmp_path / 'link')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'disk' / 'new').exists()
    monkeypatch.setattr(os.path, 'ismount', lambda path: True)
    with pytest.raises(OutputError, match='is a mount point'):
        write_whole(tmp_path / 'mounted')


def test_what_takes_the_name_of_a_result_meanwhile_stays_and_so_does_the_result(tmp_path):
    out = tmp_path / 'out'

    def taken() -> None:
        out.mkdir()
        (out / 'mine').touch()

    with pytest.raises(OutputError, match=r"the result is in '.*\.out\.partial'"):
        write_whole(out, taken)
    assert (out / 'mine').exists() and (tmp_path / '.out.partial' / 'new').exists()
    with (
        pytest.raises(BagError, match=r"cannot have its name; the new one is in '.*bag\.partial"),
        BagWriter(tmp_path / 'bag') as bag,
    ):
        bag.write_value('/x', 'new', 1)
        out.rename(tmp_path / 'bag')
    assert (tmp_path / 'bag' / 'mine').exists() and count(tmp_path / 'bag.partial' / 'bag') == 1


def test_an_old_folder_comes_back_that_a_kill_left_without_its_name(tmp_path, monkeypatch):
    out, rename = tmp_path / 'old', Path.rename
    write_whole(out)
    (out / 'new').rename(out / 'first')

    def killed(path: Path, target: Path) -> None:
        if target == out:
            raise KeyboardInterrupt
        rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, 'rename', killed)
        write_whole(out)
    with pytest.raises(OutputError, match='exists'):
        write_whole(out, force=False)
    assert [path.name for path in out.iterdir()] == ['first']
    write_whole(out)
    assert [*tmp_path.rglob('*')] == [out, out / 'new']


def test_an_old_bag_stays_where_ctrl_c_comes_as_the_new_one_takes_its_name(tmp_path, monkeypatch):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_value('/x', 'old', 1)
    rename, pressed = Path.rename, [KeyboardInterrupt]

    def stopped(path: Path, target: Path) -> None:
        if target == tmp_path / 'bag' and pressed:
            raise pressed.pop()
        rename(path, target)

    monkeypatch.setattr(Path, 'rename', stopped)
    bag = BagWriter(tmp_path / 'bag', force=True)
    for value in ('new', 'newer'):
        bag.write_value('/x', value, 1)
    with pytest.raises(KeyboardInterrupt):
        bag.close()
    assert count(tmp_path / 'bag') == 1


@pytest.mark.parametrize('name', ODD)
def test_a_bag_may_have_any_name(tmp_path, pictures, name):
    for storage in ('mcap', 'sqlite3'):
        home = tmp_path / storage / name
        home.mkdir(parents=True)
        for more in ([], ['--force']):
            assert make(pictures, home / name, '--storage', storage, *more) == 0
            assert count(home / name) == 3
        assert [path.name for path in home.iterdir()] == [name]
        assert [path.name for path in home.parent.iterdir()] == [name]
        # and be moved to any
        assert make(pictures, tmp_path / storage / 'plain', '--storage', storage) == 0
        (tmp_path / storage / 'plain').rename(tmp_path / name)
        assert count(tmp_path / name) == 3
        shutil.rmtree(tmp_path / name)


def test_a_bag_is_not_called_whole_that_its_file_does_not_hold(tmp_path, monkeypatch):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_value('/x', 'old', 1)
    before = files_of(tmp_path / 'bag')
    close: Callable[..., Any] = Writer.close

    def lose(self: Writer) -> None:
        file = self.storage.path
        close(self)
        file.unlink()

    monkeypatch.setattr(Writer, 'close', lose)
    bag = BagWriter(tmp_path / 'bag', force=True)
    bag.write_value('/x', 'new', 1)
    with pytest.raises(BagError, match='1 messages were written, 0 are in'):
        bag.close()
    assert files_of(tmp_path / 'bag') == before
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


@pytest.mark.parametrize('name', ODD)
def test_videos_data_sets_and_ego_masks_may_have_any_name(tmp_path, pictures, name, monkeypatch):
    home = tmp_path / 'home'
    home.mkdir()
    monkeypatch.chdir(home)
    with VideoWriter(Path(f'{name}.mp4'), 10.0) as video:
        for level in (50, 150):
            video.add(np.full((48, 64, 3), level, np.uint8))
    assert os.listdir(home) == [f'{name}.mp4']
    frames = [item for _, item in open_source(f'{name}.mp4')]
    assert len(frames) == 2 and all(isinstance(item, Frame) for item in frames)
    shutil.copytree(pictures, home / name)
    assert len(open_dataset(f'images:./{name}')) == len(open_dataset(f'images:{home / name}')) == 3
    assert {sample.light for sample in open_dataset(f'images:{home / name}:dusk')} == {'dusk'}
    mask = np.zeros((24, 32), np.uint8)
    mask[12:] = 255
    (home / name / 'mask.png').write_bytes(cv2.imencode('.png', mask)[1].tobytes())
    assert EgoMask(home / name / 'mask.png').at(24, 32)[12:].all()


def test_names_may_be_as_long_as_the_disk_allows(tmp_path, pictures):
    bag, clip = tmp_path / ('ü' * 123), tmp_path / f'{"ü" * 125}.mp4'
    assert make(pictures, bag) == 0 and count(bag) == 3
    with VideoWriter(clip, 10.0) as video:
        video.add(np.zeros((48, 64, 3), np.uint8))
    assert len(list(open_source(clip))) == 1
