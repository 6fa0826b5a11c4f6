# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name, and labels made for those that have none."""

import json
from pathlib import Path
import zlib

import cv2
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.data.datasets import ADAPTERS, list_dataset, open_dataset
from nightseg_ros.data.sample import (
    CAMVID32_COLORS,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    COMMA10K_COLORS,
    DataError,
    Encoding,
    label_map,
    MEANINGS,
    own_ids,
    read_image,
    read_labels,
    SEGNET_IDS,
)
from nightseg_ros.evaluation.sources import topic_labels
from nightseg_ros.taxonomy import (
    CAMVID11,
    CITYSCAPES19,
    COMMA10K,
    TAXONOMIES,
    Taxonomy,
    UNLABELLED,
)
from nightseg_ros.training.pseudo_labels import PseudoLabelConfig, write_pseudo_labels
import numpy as np
import PIL.Image
import pytest
from tiny_data import imwrite
from tiny_weights import write_segmenter


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split in ('day_train', 'dusk'):
        for stem in ('0001TP_1', '0006R0_2'):
            picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            imwrite(tmp_path / split / 'images' / f'{stem}.png', picture)
            imwrite(tmp_path / split / 'labels' / f'{stem}.png', np.full((48, 64), 3, np.uint8))
    return tmp_path


def test_adapters(root):
    assert {s.light for s in open_dataset(f'camvid:{root}:dusk')} == {'dusk'}
    # a drive at dusk, wherever it lies
    assert [s.light for s in open_dataset(f'camvid:{root}:day_train')] == ['dusk', 'day']
    assert open_dataset(f'folder:{root}/dusk:night')[0].light == 'night'
    plain = open_dataset(f'images:{root}/dusk/images')
    assert all(s.label is None for s in plain) and len(plain) == 2
    # pictures of a city beside their train ids
    assert {s.source for s in open_dataset(f'cityscapes:{root}/dusk')} == {'0001TP', '0006R0'}
    (root / 'dusk' / 'labels' / '0001TP_1.png').unlink()
    (pair,) = open_dataset(f'paired:{root}/dusk/images:{root}/dusk/labels:night')
    assert pair.image.stem == '0006R0_2' and pair.light == 'night'


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        ('camvid', 'ADAPTER:ROOT'),
        ('mapillary:x', "'mapillary:x' is no data set"),
        (r'folder:C:\data\set:night', r"there is no folder 'C:\\data\\set:night'"),
        ('folder:/nowhere', 'no folder'),
        ('camvid:{root}:night', 'no folder'),
        ('camvid:{root}', 'ADAPTER:ROOT:SPLIT'),
        ('camvid:{root}:dusk:0005VD', 'there is 0001TP, 0006R0, dusk'),
        ('images:{root}', 'no images'),
        ('images:{root}/dusk/images:nigth', "one of day, dusk, night, got 'nigth'"),
        ('paired:{root}/dusk/images', 'no folder'),
        ('comma10k:{root}:trian', "got 'trian'"),
    ],
)
def test_mistakes_are_named(root, spec, words):
    with pytest.raises(DataError, match=words):
        open_dataset(spec.format(root=root))


def test_a_missing_label_is_an_error_and_listed(root):
    (root / 'dusk' / 'labels' / '0006R0_2.png').unlink()
    for name in ('lonely.png', '0001TP_1.PNG'):
        imwrite(root / 'dusk' / 'labels' / name, np.zeros((48, 64), np.uint8))
    (root / 'dusk' / 'images' / '.0001TP_1-x1.png').write_bytes(b'half-written, and not seen')
    with pytest.raises(DataError, match=r'0006R0_2\.png.* has no labels .*data check'):
        open_dataset(f'camvid:{root}:dusk')
    samples, orphans = list_dataset(f'camvid:{root}:dusk')
    assert [s.image.stem for s in samples] == ['0001TP_1', '0006R0_2']
    assert [p.name for p in orphans] == ['0001TP_1.PNG', 'lonely.png']


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / 'torn.png').write_bytes(b'\x89PNG\r\n')
    whole = cv2.imencode('.jpg', np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / 'torn.jpg').write_bytes(whole[: len(whole) // 2])
    for name in ('torn.png', 'torn.jpg', 'missing.png'):
        for read in (read_image, read_labels):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)
    imwrite(tmp_path / 'color.png', np.full((4, 4, 3), (1, 2, 3), np.uint8))
    imwrite(tmp_path / 'deep.png', np.full((4, 4), 256, np.uint16))
    for name in ('color.png', 'deep.png'):
        with pytest.raises(DataError, match=f'{name}.*single-channel'):
            read_labels(tmp_path / name)
    # but ids that were saved as grey RGB are ids
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    imwrite(tmp_path / 'grey.png', np.repeat(ids[..., None], 3, axis=2))
    assert (read_labels(tmp_path / 'grey.png') == ids).all()
    imwrite(tmp_path / 'deep.png', ids.astype(np.uint16))
    assert (read_labels(tmp_path / 'deep.png') == ids).all()
    for kind, more in (('JPEG', {}), ('WEBP', {}), ('WEBP', {'exif': PIL.Image.Exif()})):
        PIL.Image.fromarray(ids).save(tmp_path / 'packed.png', kind, **more)
        with pytest.raises(DataError, match='is a JPEG .* changes ids'):
            read_labels(tmp_path / 'packed.png')
    for mode, alpha in (('LA', 255), ('RGBA', 255), ('RGBA', 254)):
        opaque = PIL.Image.fromarray(ids).convert(mode)
        opaque.putalpha(alpha)
        opaque.save(tmp_path / 'alpha.png')
        if alpha == 255:
            assert (read_labels(tmp_path / 'alpha.png') == ids).all()
    with pytest.raises(DataError, match='single-channel'):
        read_labels(tmp_path / 'alpha.png')


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('mode', ['palette', 'grey'])
def test_labels_are_the_values_of_the_file(tmp_path, mode, bits):
    """Another reader than ours says which: Pillow gives the indices of a palette."""
    rng = np.random.default_rng(bits)
    ids = rng.integers(0, 1 << bits, (13, 19), np.uint8)
    picture = PIL.Image.fromarray(ids, 'P')
    picture.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    picture.save(tmp_path / 'a.png', bits=bits, transparency=0)
    if mode == 'grey':
        content = bytearray((tmp_path / 'a.png').read_bytes())
        content[25] = 0
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
        # without the palette, which a grey picture must not have
        at, end = content.index(b'PLTE') - 4, content.index(b'IDAT') - 4
        del content[at:end]
        (tmp_path / 'a.png').write_bytes(content)
    assert (tmp_path / 'a.png').read_bytes()[24] == bits
    if mode == 'palette':
        np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / 'a.png')), ids)
    np.testing.assert_array_equal(read_labels(tmp_path / 'a.png'), ids)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_compressed('/labels', (tmp_path / 'a.png').read_bytes(), 'png', stamp_ns=1)
    [(_, found)] = topic_labels(BagReader(tmp_path / 'bag'), '/labels', [])
    np.testing.assert_array_equal(found, ids)


def test_ids_of_another_taxonomy_are_refused(root):
    imwrite(root / 'dusk' / 'labels' / '0001TP_1.png', np.full((48, 64), 18, np.uint8))
    wrong, right = open_dataset(f'folder:{root}/dusk')
    with pytest.raises(DataError, match="holds ids 18 that mean nothing in 'camvid11'"):
        read_labels(wrong.label)
    assert (read_labels(right.label) == 3).all()
    wrong, _ = open_dataset(f'folder:{root}/dusk', CITYSCAPES19)
    assert (read_labels(wrong.label) == CITYSCAPES19.id_of('bicycle')).all()


# -- published layouts -----------------------------------------------------------------------


def ids_of(encoding: Encoding, *names: str) -> np.ndarray:
    """Return a label image, 4 columns for each name, as the data set stores it (RGB)."""
    codes = {name: code for code, name in encoding.names.items()}
    columns = np.array([codes[name] for name in names])
    if encoding.color:
        columns = columns[:, None] >> [16, 8, 0] & 255
    return np.repeat(np.repeat(columns.astype(np.uint8)[None], 4, axis=1), 6, axis=0)


def picture(width: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (6, width, 3), np.uint8)


LAYOUTS = {
    # spec, image, label, encoding, (light, source)
    'camvid': (
        'camvid:{}:day_test', 'day_test/images/Seq05VD_f1.jpg', 'day_test/labels/Seq05VD_f1.png',
        own_ids(CAMVID11), ('day', 'Seq05VD'),
    ),
    'camvid of SegNet': (
        'camvid:{}:train', 'train/0001TP_6690.png', 'trainannot/0001TP_6690.png', SEGNET_IDS,
        ('dusk', '0001TP'),
    ),
    'camvid32': (
        'camvid32:{}', '701_StillsRaw_full/0006R0_f1.png', 'LabeledApproved_full/0006R0_f1_L.png',
        CAMVID32_COLORS, ('day', '0006R0'),
    ),
    'camvid32, split': (
        'camvid32:{}:val:0016E5', 'val/0016E5_1.png', 'val_labels/0016E5_1_L.png',
        CAMVID32_COLORS, ('day', '0016E5'),
    ),
    'cityscapes': (
        'cityscapes:{}:train:aachen', 'leftImg8bit/train/aachen/aachen_1_leftImg8bit.png',
        'gtFine/train/aachen/aachen_1_gtFine_labelIds.png', CITYSCAPES_IDS, ('day', 'aachen'),
    ),
    'cityscapes, coarse': (
        'cityscapes:{}:train_extra', 'leftImg8bit/train_extra/bonn/bonn_1_leftImg8bit.png',
        'gtCoarse/train_extra/bonn/bonn_1_gtCoarse_labelIds.png', CITYSCAPES_IDS,
        ('day', 'bonn'),
    ),
    'bdd10k': (
        'bdd10k:{}:train', 'images/10k/train/0a1b-2.jpg', 'labels/sem_seg/masks/train/0a1b-2.png',
        CITYSCAPES_TRAIN_IDS, (None, 'bdd100k'),
    ),
    'bdd10k, old': (
        'bdd10k:{}:val', 'seg/images/val/0a1b-2.jpg', 'seg/labels/val/0a1b-2_train_id.png',
        CITYSCAPES_TRAIN_IDS, (None, 'bdd100k'),
    ),
    'bdd100k': (
        'bdd100k:{}:val', 'images/100k/val/0a1b-2.jpg', None, None, (None, 'bdd100k'),
    ),
    'acdc': (
        'acdc:{}:val:night', 'rgb_anon/night/val/GOPR1/GOPR1_2_rgb_anon.png',
        'gt/night/val/GOPR1/GOPR1_2_gt_labelTrainIds.png', CITYSCAPES_TRAIN_IDS,
        ('night', 'GOPR1'),
    ),
    'acdc, fog': (
        'acdc:{}:train:fog', 'rgb_anon/fog/train/GP01/GP01_2_rgb_anon.png',
        'gt/fog/train/GP01/GP01_2_gt_labelTrainIds.png', CITYSCAPES_TRAIN_IDS, ('day', 'GP01'),
    ),
    'acdc, the same places by day': (
        'acdc:{}:train_ref', 'rgb_anon/night/train_ref/GP01/GP01_2_rgb_ref_anon.png',
        'gt/night/train_ref/GP01/GP01_2_gt_ref_labelTrainIds.png', CITYSCAPES_TRAIN_IDS,
        ('day', 'GP01'),
    ),
    'acdc, test': (
        'acdc:{}:test', 'rgb_anon/night/test/GP01/GP01_2_rgb_anon.png', None, None,
        ('night', 'GP01'),
    ),
    'dark zurich': (
        'dark_zurich:{}:val', 'rgb_anon/val/night/GOPR0356/GOPR0356_1_rgb_anon.png',
        'gt/val/night/GOPR0356/GOPR0356_1_gt_labelTrainIds.png', CITYSCAPES_TRAIN_IDS,
        ('night', 'GOPR0356'),
    ),
    'dark zurich, train': (
        'dark_zurich:{}:train:dusk', 'rgb_anon/train/twilight/GOPR1/GOPR1_1_rgb_anon.png', None,
        None, ('dusk', 'GOPR1'),
    ),
    'nighttime driving': (
        'nighttime_driving:{}', 'leftImg8bit/test/night/0_frame_1_leftImg8bit.png',
        'gtCoarse_daytime_trainvaltest/test/night/0_frame_1_gtCoarse_labelTrainIds.png',
        CITYSCAPES_TRAIN_IDS, ('night', 'nighttime_driving'),
    ),
    'nightcity': (
        'nightcity:{}:val', 'NightCity-images/images/val/Chicago_4.png',
        'NightCity-label/label/val/Chicago_4_labelIds.png', CITYSCAPES_IDS, ('night', 'Chicago'),
    ),
    'nightcity-fine': (
        'nightcity:{}:train:Chicago', 'train/img/Chicago_2.png',
        'train/lbl/Chicago_2_trainIds.png', CITYSCAPES_TRAIN_IDS, ('night', 'Chicago'),
    ),
    'kitti': (
        'kitti:{}', 'training/image_2/000000_10.png', 'training/semantic/000000_10.png',
        CITYSCAPES_IDS, ('day', 'kitti'),
    ),
    'comma10k': (
        'comma10k:{}:val', 'imgs/0001_f55_2018-05-21--17_26_599.png',
        'masks/0001_f55_2018-05-21--17_26_599.png', COMMA10K_COLORS, (None, 'f55'),
    ),
}  # fmt: skip
NAMES = {  # some names of each vocabulary and what they mean in CamVid-11
    'camvid11': {'sky': 'sky', 'road': 'road', 'bicyclist': 'bicyclist'},
    'camvid32': {
        'road': 'road', 'lane marking, drivable': 'road', 'child': 'pedestrian', 'void': None,
        'traffic light': 'sign', 'wall': 'building',
    },
    'cityscapes': {
        'road': 'road', 'sidewalk': 'pavement', 'terrain': 'tree', 'rider': 'bicyclist',
        'bus': 'car', 'traffic light': 'sign', 'wall': 'building',
    },
    'comma10k': {'road': 'road', 'lane marking': 'road', 'movable': None, 'ego car': None},
}  # fmt: skip


@pytest.mark.parametrize('name', LAYOUTS)
def test_layout(tmp_path, name):
    spec, image, label, encoding, (light, source) = LAYOUTS[name]
    names = NAMES[encoding.vocabulary] if encoding else {'road': 'road'}
    imwrite(tmp_path / image, picture(4 * len(names)))
    if label is not None:
        stored = ids_of(encoding, *names)
        imwrite(tmp_path / label, stored[..., ::-1] if stored.ndim == 3 else stored)
    # what does not belong to it
    imwrite(tmp_path / Path(image).parent / 'thumbs.ppm', picture(4))
    (sample,) = open_dataset(spec.format(tmp_path))
    assert (sample.light, sample.source) == (light, source)
    assert read_image(sample.image).shape == (6, 4 * len(names), 3)
    if label is None:
        assert sample.label is None
        return
    assert str(sample.label) == str(tmp_path / label)
    ids = read_labels(sample.label)
    wanted = [255 if x is None else CAMVID11.id_of(x) for x in names.values()]
    assert ids[2].tolist() == np.repeat(wanted, 4).tolist()
    # without its labels the sample is listed, and opens no more
    (tmp_path / label).rename(tmp_path / 'elsewhere.png')
    assert len(list_dataset(spec.format(tmp_path))[0]) == 1
    with pytest.raises(DataError, match='has no labels'):
        open_dataset(spec.format(tmp_path))


def test_every_adapter_has_a_layout_here():
    assert {spec[0].partition(':')[0] for spec in LAYOUTS.values()} == (
        set(ADAPTERS) - {'folder', 'images', 'paired'}
    )


def test_bdd_takes_the_time_of_day_from_the_json_files(tmp_path):
    times = {'a': 'daytime', 'b': 'night', 'c': 'dawn/dusk', 'd': 'undefined', 'e': None}
    for stem in times:
        imwrite(tmp_path / f'images/10k/train/{stem}.jpg', picture(8))
        imwrite(tmp_path / f'images/100k/train/{stem}.jpg', picture(8))
        imwrite(tmp_path / f'labels/sem_seg/masks/train/{stem}.png', np.zeros((6, 8), np.uint8))
    frames = [
        {'name': f'{stem}.jpg', 'attributes': time and {'timeofday': time}}
        for stem, time in times.items()
    ]
    det = tmp_path / 'labels' / 'det_20'
    det.mkdir(parents=True)
    (det / 'det_train.json').write_text(json.dumps(frames[:2]))
    # images of one split may lie in the other's file
    (det / 'det_val.json').write_text(json.dumps({'frames': frames[2:]}))
    lights = {s.image.stem: s.light for s in open_dataset(f'bdd10k:{tmp_path}:train')}
    assert lights == {'a': 'day', 'b': 'night', 'c': 'dusk', 'd': None, 'e': None}
    (night,) = open_dataset(f'bdd100k:{tmp_path}:train:night')
    assert night.image.stem == 'b' and night.label is None
    (det / 'det_val.json').write_text('{"frames": 3}')
    with pytest.raises(DataError, match=r'det_val\.json'):
        open_dataset(f'bdd10k:{tmp_path}:train')


def test_comma10k_validates_on_names_that_end_in_9_and_forgives_soft_rims(tmp_path):
    mask = np.repeat(ids_of(COMMA10K_COLORS, 'road', 'movable'), 50, axis=1)
    mask.reshape(-1, 3)[:20] = (65, 33, 32)
    for stem in ('1_aa_8', '1_ab_9', '1_ac_19'):
        imwrite(tmp_path / f'imgs/{stem}.png', picture(mask.shape[1]))
        imwrite(tmp_path / f'masks/{stem}.png', mask[..., ::-1])
    sources = {
        split: [s.source for s in open_dataset(f'comma10k:{tmp_path}:{split}', COMMA10K)]
        for split in ('train', 'val', '')
    }
    assert sources == {'train': ['aa'], 'val': ['ab', 'ac'], '': ['aa', 'ab', 'ac']}
    (sample,) = open_dataset(f'comma10k:{tmp_path}:train', COMMA10K)
    ids = read_labels(sample.label)
    assert np.unique(ids).tolist() == [0, 3, UNLABELLED] and (ids == UNLABELLED).sum() == 20
    mask.reshape(-1, 3)[:200] = (65, 33, 32)
    imwrite(tmp_path / 'masks/1_aa_8.png', mask[..., ::-1])
    with pytest.raises(DataError, match="colours #412120 that mean nothing in 'comma10k'"):
        read_labels(sample.label)


def test_a_folder_may_say_what_its_ids_mean(tmp_path):
    imwrite(tmp_path / 'images' / 'a_1.jpg', picture(8))
    imwrite(tmp_path / 'labels' / 'a_1.png', np.array([[0, 1, 2, 255]] * 6, np.uint8))
    mine = Taxonomy(name='mine', classes=('road', 'cow', 'sky'), colors=((0, 0, 0),) * 3)
    (tmp_path / 'taxonomy.json').write_text(json.dumps(mine.to_dict()))
    (sample,) = open_dataset(f'folder:{tmp_path}')
    assert read_labels(sample.label)[0].tolist() == [3, 255, 0, 255]
    (tmp_path / 'taxonomy.json').write_text(json.dumps(CITYSCAPES19.to_dict()))
    (sample,) = open_dataset(f'folder:{tmp_path}')
    assert read_labels(sample.label)[0].tolist() == [3, 4, 1, 255]
    odd = Taxonomy(name='odd', classes=('cow', 'hen', 'pig'), colors=((0, 0, 0),) * 3)
    (tmp_path / 'taxonomy.json').write_text(json.dumps(odd.to_dict()))
    with pytest.raises(DataError, match="'odd'.* mean nothing in the taxonomy 'camvid11'"):
        open_dataset(f'folder:{tmp_path}')
    for text in ('{}', '[1]'):
        (tmp_path / 'taxonomy.json').write_text(text)
        with pytest.raises(DataError, match=r'taxonomy\.json'):
            open_dataset(f'folder:{tmp_path}')


# -- label maps ------------------------------------------------------------------------------

READABLE = [
    (encoding, taxonomy)
    for encoding in (
        CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, SEGNET_IDS, CAMVID32_COLORS, COMMA10K_COLORS,
        own_ids(CAMVID11), own_ids(CITYSCAPES19), own_ids(COMMA10K),
    )
    for taxonomy in TAXONOMIES.values()
    if (encoding.vocabulary.replace('cityscapes19', 'cityscapes'), taxonomy.name) in MEANINGS
    or encoding.vocabulary == taxonomy.name
]  # fmt: skip


def test_the_mappings_that_users_need_are_there():
    found = {(encoding.vocabulary, taxonomy.name) for encoding, taxonomy in READABLE}
    for vocabulary in ('cityscapes', 'camvid32', 'camvid11', 'comma10k'):
        assert {(vocabulary, 'camvid11'), (vocabulary, 'cityscapes19')} <= found
    assert ('comma10k', 'comma10k') in found
    with pytest.raises(DataError, match=r"in \['cityscapes19', 'camvid11'\]"):
        label_map(CITYSCAPES_IDS, COMMA10K)


@pytest.mark.parametrize(('encoding', 'taxonomy'), READABLE)
def test_every_stored_value_decodes_to_its_class_or_nothing(encoding, taxonomy):
    table = label_map(encoding, taxonomy)
    lookup = dict(table.entries)
    means = set(lookup.values())
    assert taxonomy.id_of('road') in means <= {*range(len(taxonomy)), UNLABELLED}
    if encoding.vocabulary == 'cityscapes' or (encoding.vocabulary, taxonomy) == (
        'camvid32', CAMVID11
    ):  # fmt: skip
        assert means == {*range(len(taxonomy)), UNLABELLED}
    # pixel by pixel, a third of them of any value
    rng = np.random.default_rng(len(lookup))
    stored = rng.integers(0, 256, (9, 7, 3) if table.color else (9, 7), np.uint8)
    chosen = rng.choice(list(lookup), (9, 7))
    mask = rng.random((9, 7)) < 0.7
    packed = np.stack([chosen >> 16, chosen >> 8 & 255, chosen & 255], -1)
    stored[mask] = packed[mask] if table.color else chosen[mask]
    ids, unknown = table.decode(stored)
    assert ids.dtype == np.uint8 and ids.shape == (9, 7)
    codes = stored.astype(int) @ [1 << 16, 1 << 8, 1] if table.color else stored
    assert ids.ravel().tolist() == [lookup.get(code, UNLABELLED) for code in codes.flat]
    assert sum(unknown.values()) == sum(code not in lookup for code in codes.flat)


def test_pseudo_labels_keep_the_surest_share_of_each_class_on_which_all_agree(root):
    teachers = [str(write_segmenter(root / f'{n}.safetensors', seed=n)) for n in (0, 1)]

    def label(*teacher: str, keep: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels and the guess for every pixel, uint8 [2, 48, 64] each."""
        config = PseudoLabelConfig(
            data=(f'images:{root}/dusk/images',), teacher=teacher, out=str(root / 'pseudo'),
            scales=(1.0,), keep=keep, least=0.0,
        )  # fmt: skip
        out = write_pseudo_labels(config, lambda text: None)
        manifest = (out / 'manifest.json').read_text()
        assert json.loads(manifest)['frames'] == 2 and str(root) not in manifest
        samples = open_dataset(f'paired:{root}/dusk/images:{out}')
        found = [[read_labels(x) for x in (s.label, s.scene) if x] for s in samples]
        masks, guesses = np.stack(found, 1)
        assert (guesses < 11).all() and ((masks == guesses) | (masks == 255)).all()
        return masks, guesses

    for keep in (0.0, 0.3, 1.0):
        share = (label(teachers[0], keep=keep)[0] != 255).mean()
        # certainty is stored in 256 steps, so that a whole step is kept at the border
        assert keep - 1e-6 <= share <= min(1.0, keep + 0.3)
    # whoever reads the ids as another taxonomy is told what they mean
    for folder in (root / 'pseudo', root / 'pseudo' / 'scene'):
        about = json.loads((folder / 'taxonomy.json').read_text())
        assert Taxonomy.from_dict(about) == CAMVID11
    twice = (f'images:{root}/dusk/images', f'images:{root}/dusk/images')
    with pytest.raises(DataError, match='2 images are called'):
        config = PseudoLabelConfig(data=twice, teacher=teachers[0:1], out=str(root / 'twice'))
        write_pseudo_labels(config, lambda text: None)
    one, other, both = (label(*some)[0] for some in (teachers[:1], teachers[1:], teachers))
    agree = one == other
    assert 0 < agree.sum() < agree.size
    assert (both == np.where(agree, one, 255)).all()
    # labels of an earlier run do not lie amid those of the next; others' files are not touched
    picture = next((root / 'dusk' / 'images').iterdir())
    imwrite(root / 'single' / picture.name, cv2.imread(str(picture)))
    options = {'data': (f'images:{root}/single',), 'out': str(root / 'pseudo')}
    single = PseudoLabelConfig(teacher=teachers[:1], **options)
    out = write_pseudo_labels(single, lambda text: None)
    assert [path.stem for path in out.glob('*.png')] == [picture.stem]
    (out / 'corrected.png').touch()
    with pytest.raises(DataError, match="others' files lie in it"):
        write_pseudo_labels(single, lambda text: None)
