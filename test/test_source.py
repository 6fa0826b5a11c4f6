# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frame sources: every kind of input gives the same frames, and broken ones are told apart."""

import itertools
from pathlib import Path
import re

from bag_samples import picture
from nightseg_ros.bags.reader import BagError, BagReadError
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.data.extract import extract
from nightseg_ros.data.sample import DataError, read_image
from nightseg_ros.data.source import open_source, read_stamps
from nightseg_ros.files import natural_order
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.video import VideoWriter
import numpy as np
import PIL.Image
import pytest
from tiny_data import imwrite


def write_folder(folder: Path, count: int) -> Path:
    for index in range(count):
        imwrite(folder / f'street_{index}.png', picture(index))
    return folder


def test_an_image_and_a_phones_that_is_upright(tmp_path):
    path = tmp_path / 'a.png'
    imwrite(path, picture(0))
    source = open_source(path)
    [(stem, frame)] = source
    assert (source.kind, source.count, stem, frame.order) == ('image', 1, 'a', 'bgr')
    assert (frame.image == picture(0)).all()
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # to be turned by 90° clockwise
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:20] = 255
    path = tmp_path / 'phone.jpg'
    PIL.Image.fromarray(stored).save(path, exif=exif)
    for found in (read_image(path), dict(open_source(path))['phone'].image):
        assert found.shape == (60, 40, 3)
        assert found[:, :16].mean() < 5 and found[:, 24:].mean() > 250


@pytest.mark.parametrize('rate', [None, 30.0])
def test_a_folder_is_in_natural_order_and_a_sequence_with_a_rate(tmp_path, rate):
    source = open_source(write_folder(tmp_path / 'f', 12), rate=rate)
    assert source.count == 12 and source.sequence == (rate is not None)
    # ten before two would be the order of the letters; it can be read twice
    for _ in range(2):
        found = [(stem, frame.stamp_ns) for stem, frame in source]
        assert found == [(f'street_{i}', round(i * 1e9 / (rate or 10))) for i in range(12)]


@pytest.mark.parametrize(
    'names',
    [
        ['a.png', 'a1.png', 'a2.png', 'a2b.png', 'a10.png'],
        ['1700000000.1.png', '1700000000.15.png', '1700000000.2.png', '1700000001.05.png'],
        ['001.png', '01.png', '1.png', '2.png'],
    ],
    ids=['numbers', 'seconds of an epoch', 'equal numbers'],
)
def test_names_are_in_natural_order(names):
    for paths in itertools.permutations(map(Path, names)):
        assert [path.name for path in sorted(paths, key=natural_order)] == names


def test_pictures_that_are_not_read_are_told(tmp_path):
    """A phone writes HEIC beside JPEG: a folder must not seem smaller than it is in silence."""
    folder = write_folder(tmp_path / 'f', 2)
    (folder / 'IMG_1.HEIC').touch()
    assert open_source(folder).note == 'not read: files .HEIC'
    (tmp_path / 's.txt').write_text('1.0 street_0.png\n')
    note = open_source(folder, stamps=tmp_path / 's.txt').note
    assert note == 'not read: files .HEIC; 1 pictures without a stamp: street_1.png'
    said: list[str] = []
    extract([folder], tmp_path / 'out', every=0, log=said.append)
    assert said == ['f: not read: files .HEIC']
    for file in folder.glob('*.png'):
        file.unlink()
    with pytest.raises(DataError, match='holds no images .* not read: files .HEIC'):
        open_source(folder)


def test_a_broken_file_is_an_error_in_its_place(tmp_path):
    folder = write_folder(tmp_path / 'f', 3)
    (folder / 'street_1.png').write_bytes(b'\0\0\0\x18ftypheic')
    (folder / 'notes.txt').write_text('not a picture, and not looked at')
    (folder / 'street_3.jpg').touch()
    imwrite(folder / 'street_2.jpg', picture(0))
    items = dict(open_source(folder))
    assert [type(item) for item in items.values()] == [Frame, FrameError, Frame, FrameError,
                                                       FrameError]  # fmt: skip
    assert re.search(r'street_1\.png.* HEIC', str(items['street_1']))
    assert 'would give one result' in str(items['street_2.png'])


KITTI = 1317042145964389445
"""2011-09-26 13:02:25.964389445 UTC, by GNU date."""


@pytest.mark.parametrize(
    ('content', 'names'),
    [
        (b'# s name\n\n1317042145.964389445   rgb/a.png\n1317042146.964389445 rgb/b.png',
         ('a.png', 'b.png')),
        (b'#timestamp [ns],filename\n1317042145964389445,a.png\n1317042146964389445,b.png',
         ('a.png', 'b.png')),
        (b'2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.964389445\n', None),
        (b'2011-09-26T13:02:25.964389445Z a.png\n2011-09-26T15:02:26.964389445+02:00 b b.png',
         ('a.png', 'b b.png')),
        (b'"2011-09-26 13:02:25.964389445","a.png"\r\n"1317042146.964389445","b b.png"\r\n',
         ('a.png', 'b b.png')),
        (b'\xef\xbb\xbf1317042145964389445;x/a.png\r\n1317042146964389445;x/b.png',
         ('a.png', 'b.png')),
        ('\ufeff1317042145964389445\r\n1317042146964389445,\r\n'.encode('utf-16-le'), None),
        (b'Timestamp;file\n1317042145964389445;C:\\x\\a.png\n1317042146964389445;b.png',
         ('a.png', 'b.png')),
    ],
    ids=['TUM', 'EuRoC', 'KITTI', 'ISO 8601', 'quotes', 'byte order mark', 'UTF-16',
         'names of columns'],
)  # fmt: skip
def test_stamps_as_people_have_them(tmp_path, content, names):
    (tmp_path / 'timestamps.txt').write_bytes(content)
    assert read_stamps(tmp_path / 'timestamps.txt') == ((KITTI, KITTI + 10**9), names)


def test_stamps_of_another_unit_are_told(tmp_path, caplog):
    """Those of nuScenes are microseconds, of which 50,000 lie between two pictures."""
    (tmp_path / 's.txt').write_text('1532402927612460 a.png\n1532402927662460 b.png\n')
    read_stamps(tmp_path / 's.txt')
    assert 'are 50000 ns apart: whole numbers are nanoseconds' in caplog.text


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('', 'holds none'),
        ('2\n1', 'line 2'),
        ('1.5 a.png\n2.5', 'line 2'),
        ('noon', "'noon' is no stamp"),
        ('2011-13-26 13:02:25', 'line 1'),
        ('nan', "'nan' is no stamp"),
        ('1.5\n17000000000000000000', 'line 2: .* lies beyond 2038'),
    ],
)
def test_a_wrong_line_of_stamps_is_named(tmp_path, text, words):
    (tmp_path / 'stamps.txt').write_text(text)
    with pytest.raises(DataError, match=words):
        read_stamps(tmp_path / 'stamps.txt')


def test_a_video_takes_its_stamps_from_its_rate_or_a_file(tmp_path):
    path = tmp_path / 'v.mp4'
    with VideoWriter(path, 25.0) as video:
        for index in range(6):
            video.add(np.full((48, 64, 3), 10 * index, np.uint8))
    source = open_source(path)
    assert (source.kind, source.count) == ('video', 6)
    for index, (stem, frame) in enumerate(source):
        assert (stem, frame.stamp_ns) == (f'00000{index}', 40_000_000 * index)
        assert abs(float(frame.image.mean()) - 10 * index) < 6
    (tmp_path / 'two.txt').write_text('1.0\n2.0\n')
    items = list(open_source(path, stamps=tmp_path / 'two.txt'))
    assert [getattr(item, 'stamp_ns', None) for _, item in items] == [10**9, 2 * 10**9, None]
    (tmp_path / 'seven.txt').write_text(''.join(f'{n}.0\n' for n in range(1, 8)))
    *frames, (_, error) = open_source(path, stamps=tmp_path / 'seven.txt')
    assert len(frames) == 6 and 'has 6 frames for 7 stamps' in str(error)
    (tmp_path / 'named.txt').write_text('1.0 front\n2.0 front\n')
    with pytest.raises(DataError, match='one a frame, without names'):
        open_source(path, stamps=tmp_path / 'named.txt')


def test_the_end_of_a_damaged_bag_has_the_name_of_no_frame(tmp_path):
    """A frame's mask is removed where the frame cannot be read."""
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(4):
            image = np.full((600, 700, 3), index, np.uint8)
            bag.write_frame('/front/image_raw', Frame(image=image, stamp_ns=index + 1))
    file = tmp_path / 'bag' / 'bag.mcap'
    file.write_bytes(file.read_bytes()[:-2_000_000])
    *frames, (stem, error) = open_source(tmp_path / 'bag')
    assert isinstance(error, BagReadError) and frames and stem not in dict(frames)


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('missing.png', {}, 'does not exist'),
        ('data.csv', {}, 'neither an image'),
        ('phone.heic', {}, 'convert it to one of these'),
        ('broken.mp4', {}, 'broken.mp4'),
        ('empty', {}, 'no images'),
        ('f', {'topic': '/camera/image_raw'}, 'no topic'),
        ('f', {'rate': 0.0}, 'rate'),
        ('f', {'stamps': '1.0\n2.0\n'}, '2 stamps came for the 3 images'),
        ('f', {'stamps': '1.0 sea.png\n'}, r'sea\.png'),
        ('f', {'stamps': '1.5 cam0/a.png\n2.5 cam1/a.png'}, "name 'a.png' 2 times"),
        ('f', {'rate': 5, 'stamps': '1.0\n'}, 'not both'),
        ('bag', {'topic': '/right/image_raw'}, '/left/image_raw'),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path, name, options, words):
    for file in ('data.csv', 'broken.mp4', 'phone.heic'):
        (tmp_path / file).write_bytes(b'1,2')
    (tmp_path / 'empty').mkdir()
    write_folder(tmp_path / 'f', 3)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_frame('/left/image_raw', Frame(image=picture(0), stamp_ns=10**18))
    if 'stamps' in options:
        (tmp_path / 's.txt').write_text(options['stamps'])
        options = {**options, 'stamps': tmp_path / 's.txt'}
    with pytest.raises((BagError, DataError), match=words):
        open_source(tmp_path / name, **options)
