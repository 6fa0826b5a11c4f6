# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets are checked whole, and recordings become pictures, whatever goes wrong."""

from collections import Counter
import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import cv2
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.data.check import ADVICE, check_datasets
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.extract import extract
from nightseg_ros.data.sample import DataError, read_image
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.video import VideoWriter
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19, COMMA10K
import numpy as np
import PIL.Image
import pytest
from tiny_data import imwrite


def scene(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Return a picture of a few large blobs, as unlike another seed's as another street."""
    rng = np.random.default_rng(seed)
    blobs = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (width, height))
    return np.clip(blobs + rng.normal(0, 4, blobs.shape), 0, 255).astype(np.uint8)


def add(root: Path, stem: str, seed: int) -> None:
    imwrite(root / 'images' / f'{stem}.png', scene(seed))
    imwrite(root / 'labels' / f'{stem}.png', np.full((60, 80), 3, np.uint8))


@pytest.fixture
def good(tmp_path):
    for index in range(3):
        add(tmp_path / 'good', f'cam_{index}', index)
    return tmp_path / 'good'


def found(*specs: object, **options: object) -> Counter[str]:
    return Counter(check_datasets([str(spec) for spec in specs], workers=1, **options)['counts'])


# -- check -----------------------------------------------------------------------------------


SMALL, BLANK = np.full((30, 40), 3, np.uint8), np.full((60, 80, 3), 7, np.uint8)
#: Kind, file that is spoilt, what becomes of it (None: it goes; a number: bytes that are left).
SPOILT = [
    ('label missing', 'labels/cam_1.png', None),
    ('picture missing', 'images/cam_1.png', None),
    ('picture unreadable', 'images/cam_1.png', 60),
    ('picture unreadable', 'images/cam_1.png', 0),
    *(('label unreadable', 'labels/cam_1.png', -cut) for cut in (6, 20)),
    ('label unreadable', 'labels/cam_1.png', scene(5)),
    ('sizes differ', 'labels/cam_1.png', SMALL),
    ('turned', 'labels/cam_1.png', np.full((80, 60), 3, np.uint8)),
    ('ids without a meaning', 'labels/cam_1.png', np.full((60, 80), 11, np.uint8)),
    ('nothing labelled', 'labels/cam_1.png', np.full((60, 80), 255, np.uint8)),
    ('blank picture', 'images/cam_1.png', BLANK),
    ('same name twice', 'images/cam_1.jpg', scene(9)),
]


def change_file(path: Path, change: Any) -> None:
    if change is None:
        path.unlink()
    elif isinstance(change, int):
        path.write_bytes(path.read_bytes()[:change])
    else:
        imwrite(path, change)


@pytest.mark.parametrize(('kind', 'file', 'change'), SPOILT)
def test_a_problem_is_found_and_named(good, kind, file, change):
    change_file(good / file, change)
    report = check_datasets([f'folder:{good}'], workers=1)
    (problem,) = report['problems']
    assert (problem['kind'], problem['dataset']) == (kind, f'folder:{good}')
    assert report['datasets'][0]['stray_colors'] == 0, 'ids have no colour'
    named = {'label missing': 'images/cam_1.png', 'picture missing': 'labels/cam_1.png',
             'same name twice': 'images/cam_1.png'}  # fmt: skip
    assert problem['where'] == str(good / named.get(kind, file))


def test_all_problems_are_listed_and_ids_judged_by_the_taxonomy(good, tmp_path):
    change_file(good / 'labels' / 'cam_1.png', None)
    change_file(good / 'images' / 'cam_1.png', BLANK)
    imwrite(good / 'labels' / 'cam_0.png', np.full((60, 80), 18, np.uint8))
    specs = (f'folder:{good}', f'images:{tmp_path / "nowhere"}', f'images:{tmp_path}')
    known = {'label missing': 1, 'blank picture': 1}
    assert found(*specs) == {**known, 'ids without a meaning': 1, 'cannot be opened': 2}
    assert found(specs[0], taxonomy=CITYSCAPES19) == known


def test_files_as_people_have_them(tmp_path, caplog):
    """An é in two forms of Unicode, .PNG, macOS' files beside others, HEIC, a link to itself."""
    root = tmp_path / 'set'
    add(root, 'allée_0', 0)
    (root / 'labels' / 'allée_0.png').rename(root / 'labels' / 'allée_0.PNG')
    for place, form, content in (
        ('images', 'NFC', scene(1)), ('labels', 'NFD', np.full((60, 80), 3, np.uint8)),
    ):  # fmt: skip
        encoded = cv2.imencode('.png', content)[1].tobytes()
        (root / place / normalize(form, 'allée_1.png')).write_bytes(encoded)
        (root / place / '._allée_1.png').write_bytes(b'\0\5\x16\7')
    for spec in (f'folder:{root}', f'paired:{root}/images:{root}/labels'):
        assert found(spec) == {} and len(open_dataset(spec)) == 2
    assert not caplog.text
    (root / 'images' / 'IMG_1.HEIC').touch()
    assert len(open_dataset(spec)) == 2
    assert caplog.messages == [f"'{root}/images': not read: files .HEIC"]
    (root / 'images' / 'loop.png').symlink_to('loop.png')
    assert found(f'images:{root}/images') == {'picture unreadable': 1}


def test_guesses_are_read_as_well(good):
    spec = f'paired:{good}/images:{good}/labels'
    for index in range(3):
        imwrite(good / 'labels' / 'scene' / f'cam_{index}.png', np.full((60, 80), 3, np.uint8))
    assert found(spec) == {}
    change_file(good / 'labels' / 'scene' / 'cam_0.png', SMALL)
    change_file(good / 'labels' / 'scene' / 'cam_1.png', None)
    assert found(spec) == {'label unreadable': 2}


@pytest.mark.parametrize('turned', [False, True])
def test_labels_of_a_picture_as_it_is_stored_are_told(tmp_path, turned):
    """Of a phone that was held upside down; they may be drawn on the upright picture or not."""
    (tmp_path / 'images').mkdir()
    ids = np.random.default_rng(1).integers(0, 5, (3, 4), np.uint8).repeat(20, 0).repeat(20, 1)
    exif = PIL.Image.Exif()
    exif[0x112] = 3
    stored = np.ascontiguousarray(np.stack([50 * ids] * 3, axis=2)[::-1, ::-1])
    PIL.Image.fromarray(stored).save(tmp_path / 'images' / 'a.jpg', exif=exif)
    imwrite(tmp_path / 'labels' / 'a.png', ids[::-1, ::-1] if turned else ids)
    assert found(f'folder:{tmp_path}') == ({'turned': 1} if turned else {})


def test_stray_colours_are_counted_but_no_problem(tmp_path):
    mask = np.full((60, 80, 3), (0x20, 0x20, 0x40), np.uint8)  # BGR of the road
    mask[0, :10] = (0x21, 0x20, 0x40)
    imwrite(tmp_path / 'masks' / '1_dev_8.png', mask)
    imwrite(tmp_path / 'imgs' / '1_dev_8.png', scene(1))
    report = check_datasets([f'comma10k:{tmp_path}'], COMMA10K, workers=1)
    assert report['problems'] == [] and report['datasets'][0]['stray_colors'] == 1


@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('copy.png', lambda image: image),
        ('smaller.png', lambda image: cv2.resize(image, (50, 40), interpolation=cv2.INTER_AREA)),
        ('brighter.png', lambda image: np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8)),
        ('darker.png', lambda image: image // 2),
        ('packed.jpg', lambda image: image),
    ],
)
def test_near_duplicates_across_splits(good, tmp_path, name, change):
    path = tmp_path / 'test' / name
    imwrite(path, change(scene(1)))
    imwrite(tmp_path / 'test' / 'a.png', scene(77))
    report = check_datasets([f'folder:{good}', f'images:{path.parent}'], workers=1)
    (problem,) = report['problems']
    assert problem['kind'] == 'near-duplicate' and str(path) in problem['detail']
    assert problem['where'] == str(good / 'images' / 'cam_1.png')
    # within one split pictures may be alike
    add(good, 'cam_9', 1)
    assert found(f'folder:{good}') == {}


def test_several_threads_find_the_same_and_no_other_place_is_taken_for_a_duplicate(good, tmp_path):
    for index in range(3, 130):
        add(good, f'cam_{index}', index)
    change_file(good / 'labels' / 'cam_1.png', SMALL)
    imwrite(tmp_path / 'other' / 'a.png', scene(5))
    specs = [f'folder:{good}', f'images:{tmp_path / "other"}']
    alone, together = (check_datasets(specs, workers=n) for n in (1, 2))
    assert alone == together and len(alone['problems']) == 2


def test_the_report_replaces_nothing_of_the_data(good, capsys):
    file = good / 'labels' / 'cam_0.png'
    before = file.read_bytes()
    assert main(['data', 'check', f'folder:{good}', '--json', str(file)]) == 2
    assert 'nightseg did not write' in capsys.readouterr().err and file.read_bytes() == before


def test_the_verb_says_what_to_do_and_exits_with_1(good, tmp_path, capsys):
    file = tmp_path / 'check.json'
    assert main(['data', 'check', f'folder:{good}:night', '--json', str(file)]) == 0
    said = capsys.readouterr().out
    assert 'no problems found' in said and ': road 100%\n' in said
    content = json.loads(file.read_text())
    (summary,) = content['datasets']
    assert content['problems'] == [] and summary['images'] == summary['labelled'] == 3
    assert (summary['sizes'], summary['lights']) == ({'80×60': 3}, {'night': 3})
    assert summary['sources'] == {'cam': 3} and summary['unlabelled_share'] == 0
    assert summary['class_shares']['road'] == 1
    assert summary['absent_classes'] == [name for name in CAMVID11.classes if name != 'road']
    change_file(good / 'labels' / 'cam_1.png', None)
    assert main(['data', 'check', f'folder:{good}', '--json', str(file), '--workers', '1']) == 1
    kind = 'label missing'
    assert f'{kind}: 1. What to do: {ADVICE[kind]}' in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content['counts'] == {kind: 1} and set(content['advice']) == {kind}


# -- extract ---------------------------------------------------------------------------------

START = 10**18


@pytest.fixture
def bag(tmp_path):
    """Return a drive of 2 s at 10 Hz whose frames say their number."""
    with BagWriter(tmp_path / 'my_night drive') as bag:
        for index in range(20):
            frame = Frame(
                image=np.full((16, 24, 3), 12 * index, np.uint8),
                stamp_ns=START + index * 100_000_000,
            )
            bag.write_frame('/front/image_raw', frame)
            if index % 2 == 0:
                bag.write_frame('/rear/image_raw', frame)
    return tmp_path / 'my_night drive'


FRONT: dict[str, Any] = {'topic': '/front/image_raw'}


@pytest.mark.parametrize(
    ('every', 'times'), [(0, range(20)), (0.1, range(20)), (0.25, (0, 3, 5, 8, 10, 13, 15, 18))]
)
def test_a_bag_becomes_a_data_set_of_frames_on_a_grid_of_stamps(bag, tmp_path, every, times):
    out = tmp_path / 'out'
    assert extract([bag], out, every=every, encoding='png', **FRONT) == (len(times), 0)
    samples = open_dataset(f'images:{out}')
    names = [f'my-night-drive-front_{START + time * 100_000_000}.png' for time in times]
    assert [sample.image.name for sample in samples] == names
    assert {sample.source for sample in samples} == {'my-night-drive-front'}
    assert all((read_image(s.image) == 12 * time).all() for s, time in zip(samples, times))


def test_frames_of_one_stamp_are_told(tmp_path):
    said: list[str] = []
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(3):
            frame = Frame(image=scene(index), stamp_ns=START)
            bag.write_frame('/a/image_raw', frame, received_ns=START + index)
    assert extract([tmp_path / 'bag'], tmp_path / 'out', every=0, log=said.append) == (1, 0)
    assert said == ['bag-a: 2 frames left out, whose stamps others have']


def test_a_folder_of_frames_is_whole_and_replaced_by_force_alone(bag, tmp_path):
    out = tmp_path / 'out'
    (tmp_path / '.out.partial').mkdir()  # what a kill leaves
    (tmp_path / '.out.partial' / 'half.jpg').write_bytes(b'half')
    assert extract([bag], out, every=0.2, **FRONT) == (10, 0)
    assert len(list(out.iterdir())) == 10 and not (tmp_path / '.out.partial').exists()
    with pytest.raises(DataError, match='--force'):
        extract([bag], out, every=1.0, **FRONT)
    assert extract([bag], out, every=1.0, **FRONT, force=True) == (2, 0)


def test_videos_and_folders(tmp_path):
    with VideoWriter(tmp_path / '2024_drive.mp4', 10.0) as video:
        for index in range(10):
            video.add(np.full((48, 64, 3), 20 * index, np.uint8))
    folder, out = tmp_path / 'frames', tmp_path / 'out'
    for index in range(4):
        imwrite(folder / f'{index}.png', scene(index))
    with pytest.raises(DataError, match='--rate'):
        extract([folder], out, every=0.5)
    assert not out.exists()
    assert extract([tmp_path / '2024_drive.mp4'], out, every=0.5) == (2, 0)
    assert extract([folder], tmp_path / 'other', every=0.5, rate=4.0) == (2, 0)
    found = sorted(p.stem for p in (*out.iterdir(), *(tmp_path / 'other').iterdir()))
    assert found == [
        f'{name}_{stamp:019d}'
        for name in ('drive-2024-drive', 'frames')
        for stamp in (0, 5 * 10**8)
    ]


def test_mistakes_are_named_before_anything_is_written(bag, tmp_path):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / bag.name).symlink_to(bag)
    (tmp_path / 'torn').mkdir()
    (tmp_path / 'torn' / 'a.png').write_bytes(b'torn')
    for sources, options, words in (
        (['nowhere'], {}, 'does not exist'),
        ([bag.name, f'x/{bag.name}'], FRONT, 'rename one'),
        (['torn'], {'rate': 1.0}, 'no frame that can be read'),
        ([bag.name], {**FRONT, 'rate': 1.0}, '--rate is of folders and videos'),
    ):
        with pytest.raises(DataError, match=words):
            extract([tmp_path / name for name in sources], tmp_path / 'out', **options)
        assert not list((tmp_path / 'out').glob('*.jpg'))


def test_the_verb_counts_broken_frames(tmp_path, capsys):
    folder = tmp_path / 'frames'
    for index in range(3):
        imwrite(folder / f'{index}.png', scene(index))
    (folder / '1.png').write_bytes(b'torn')
    flags = ['data', 'extract', str(folder), '--out', str(tmp_path / 'out'), '--every', '1']
    assert main([*flags, '--rate', '1']) == 1
    shown = capsys.readouterr()
    assert "2 frames in '" in shown.out and '1 frames could not be read' in shown.err
    assert main([*flags, '--rate', '1', '--force', '--format', 'png', '--quality', '60']) == 2
    assert '--quality has no effect on PNG' in capsys.readouterr().err
