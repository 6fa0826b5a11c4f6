# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name, and labels made for those that have none."""

from dataclasses import replace
import json
from pathlib import Path
import re
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
from tiny_data import imwrite, silent
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


def test_ids_are_read_from_other_kinds_of_pictures_where_none_changes(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    file, opaque = tmp_path / 'a.png', np.full_like(ids, 255)

    def save(*channels: np.ndarray, kind: str = 'PNG', **more: object) -> None:
        PIL.Image.fromarray(np.dstack(channels).squeeze()).save(file, kind, **more)

    deep = ids.astype(np.uint16)
    for channels in ((deep,), (ids, opaque), (ids, ids, ids), (ids, ids, ids, opaque)):
        save(*channels)
        np.testing.assert_array_equal(read_labels(file), ids)
    for channels in ((deep + 250,), (ids, ids, ids + 1), (ids, ids, ids, opaque - 1)):
        save(*channels)
        with pytest.raises(DataError, match=r'a\.png.*single-channel'):
            read_labels(file)
    for kind, more in (('JPEG', {}), ('WEBP', {}), ('WEBP', {'exif': PIL.Image.Exif()})):
        save(ids, kind=kind, **more)
        with pytest.raises(DataError, match='is a JPEG .* changes ids'):
            read_labels(file)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_labels_are_the_values_of_the_file(tmp_path, bits):
    """Another reader than ours says which: Pillow gives the indices of a palette."""
    rng = np.random.default_rng(bits)
    ids = rng.integers(0, 1 << bits, (13, 19), np.uint8)
    picture = PIL.Image.fromarray(ids, 'P')
    picture.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    picture.save(tmp_path / 'palette.png', bits=bits, transparency=0)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / 'palette.png')), ids)
    content = bytearray((tmp_path / 'palette.png').read_bytes())
    assert content[24] == bits
    content[25] = 0
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    # without the palette, which a grey picture must not have
    at, end = content.index(b'PLTE') - 4, content.index(b'IDAT') - 4
    del content[at:end]
    (tmp_path / 'grey.png').write_bytes(content)
    with BagWriter(tmp_path / 'bag') as bag:
        for stamp, file in enumerate((tmp_path / 'palette.png', tmp_path / 'grey.png'), start=1):
            np.testing.assert_array_equal(read_labels(file), ids)
            bag.write_compressed('/labels', file.read_bytes(), 'png', stamp_ns=stamp)
    found = [labels for _, labels in topic_labels(BagReader(tmp_path / 'bag'), '/labels', [])]
    np.testing.assert_array_equal(found, [ids, ids])


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


ENCODINGS = {
    'own': own_ids(CAMVID11), 'segnet': SEGNET_IDS, 'camvid32': CAMVID32_COLORS,
    'ids': CITYSCAPES_IDS, 'train_ids': CITYSCAPES_TRAIN_IDS, 'comma10k': COMMA10K_COLORS,
}  # fmt: skip
#: Spec, key of ENCODINGS, light and source; a picture; where its labels are, if there are any.
_LAYOUTS = """\
camvid:{}:day_test own day Seq05VD
    day_test/images/Seq05VD_f1.jpg
    day_test/labels/Seq05VD_f1.png
camvid:{}:train segnet dusk 0001TP
    train/0001TP_6690.png
    trainannot/0001TP_6690.png
camvid32:{} camvid32 day 0006R0
    701_StillsRaw_full/0006R0_f1.png
    LabeledApproved_full/0006R0_f1_L.png
camvid32:{}:val:0016E5 camvid32 day 0016E5
    val/0016E5_1.png
    val_labels/0016E5_1_L.png
cityscapes:{}:train:aachen ids day aachen
    leftImg8bit/train/aachen/aachen_1_leftImg8bit.png
    gtFine/train/aachen/aachen_1_gtFine_labelIds.png
cityscapes:{}:train_extra ids day bonn
    leftImg8bit/train_extra/bonn/bonn_1_leftImg8bit.png
    gtCoarse/train_extra/bonn/bonn_1_gtCoarse_labelIds.png
bdd10k:{}:train train_ids - bdd100k
    images/10k/train/0a1b-2.jpg
    labels/sem_seg/masks/train/0a1b-2.png
bdd10k:{}:val train_ids - bdd100k
    seg/images/val/0a1b-2.jpg
    seg/labels/val/0a1b-2_train_id.png
bdd100k:{}:val - - bdd100k
    images/100k/val/0a1b-2.jpg
acdc:{}:val:night train_ids night GOPR1
    rgb_anon/night/val/GOPR1/GOPR1_2_rgb_anon.png
    gt/night/val/GOPR1/GOPR1_2_gt_labelTrainIds.png
acdc:{}:train:fog train_ids day GP01
    rgb_anon/fog/train/GP01/GP01_2_rgb_anon.png
    gt/fog/train/GP01/GP01_2_gt_labelTrainIds.png
acdc:{}:train_ref train_ids day GP01
    rgb_anon/night/train_ref/GP01/GP01_2_rgb_ref_anon.png
    gt/night/train_ref/GP01/GP01_2_gt_ref_labelTrainIds.png
acdc:{}:test - night GP01
    rgb_anon/night/test/GP01/GP01_2_rgb_anon.png
dark_zurich:{}:val train_ids night GOPR0356
    rgb_anon/val/night/GOPR0356/GOPR0356_1_rgb_anon.png
    gt/val/night/GOPR0356/GOPR0356_1_gt_labelTrainIds.png
dark_zurich:{}:train:dusk - dusk GOPR1
    rgb_anon/train/twilight/GOPR1/GOPR1_1_rgb_anon.png
nighttime_driving:{} train_ids night nighttime_driving
    leftImg8bit/test/night/0_frame_1_leftImg8bit.png
    gtCoarse_daytime_trainvaltest/test/night/0_frame_1_gtCoarse_labelTrainIds.png
nightcity:{}:val ids night Chicago
    NightCity-images/images/val/Chicago_4.png
    NightCity-label/label/val/Chicago_4_labelIds.png
nightcity:{}:train:Chicago train_ids night Chicago
    train/img/Chicago_2.png
    train/lbl/Chicago_2_trainIds.png
kitti:{} ids day kitti
    training/image_2/000000_10.png
    training/semantic/000000_10.png
comma10k:{}:val comma10k - f55
    imgs/0001_f55_2018-05-21--17_26_599.png
    masks/0001_f55_2018-05-21--17_26_599.png"""
LAYOUTS = re.split(r'\n(?=\S)', _LAYOUTS)
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


@pytest.mark.parametrize('layout', LAYOUTS, ids=lambda layout: layout.split()[0])
def test_layout(tmp_path, layout):
    spec, code, light, source, image, *labels = layout.split()
    names = NAMES[ENCODINGS[code].vocabulary] if labels else {'road': 'road'}
    imwrite(tmp_path / image, picture(4 * len(names)))
    for label in labels:
        stored = ids_of(ENCODINGS[code], *names)
        imwrite(tmp_path / label, stored[..., ::-1] if stored.ndim == 3 else stored)
    # what does not belong to it
    imwrite(tmp_path / Path(image).parent / 'thumbs.ppm', picture(4))
    (sample,) = open_dataset(spec.format(tmp_path))
    assert (sample.light or '-', sample.source) == (light, source)
    assert read_image(sample.image).shape == (6, 4 * len(names), 3)
    if not labels:
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
    tested = {layout.partition(':')[0] for layout in LAYOUTS}
    assert tested == set(ADAPTERS) - {'folder', 'images', 'paired'}


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


def test_a_folder_may_say_what_its_ids_mean(tmp_path, caplog):
    imwrite(tmp_path / 'images' / 'a_1.jpg', picture(8))
    imwrite(tmp_path / 'labels' / 'a_1.png', np.array([[0, 1, 2, 255]] * 6, np.uint8))
    about = tmp_path / 'taxonomy.json'
    mine = Taxonomy(name='mine', classes=('road', 'cow', 'sky'), colors=((0, 0, 0),) * 3)
    for taxonomy, ids in ((mine, [3, 255, 0, 255]), (CITYSCAPES19, [3, 4, 1, 255])):
        about.write_text(json.dumps(taxonomy.to_dict()))
        (sample,) = open_dataset(f'folder:{tmp_path}')
        assert read_labels(sample.label)[0].tolist() == ids
    assert caplog.messages == ["labels: cow of 'mine' are no classes of 'camvid11' and become 255"]
    odd = replace(mine, name='odd', classes=('cow', 'hen', 'pig'))
    for text, words in (
        (json.dumps(odd.to_dict()), "'odd'.* mean nothing in the taxonomy 'camvid11'"),
        ('{}', r'taxonomy\.json'),
        ('[1]', r'taxonomy\.json'),
    ):
        about.write_text(text)
        with pytest.raises(DataError, match=words):
            open_dataset(f'folder:{tmp_path}')


# -- label maps ------------------------------------------------------------------------------

READABLE = [
    (encoding, taxonomy)
    for encoding in (*ENCODINGS.values(), own_ids(CITYSCAPES19), own_ids(COMMA10K))
    for taxonomy in TAXONOMIES.values()
    if (encoding.vocabulary.replace('cityscapes19', 'cityscapes'), taxonomy.name) in MEANINGS
    or encoding.vocabulary == taxonomy.name
]


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
    teachers = tuple(str(write_segmenter(root / f'{n}.safetensors', seed=n)) for n in (0, 1))
    images, out = root / 'dusk' / 'images', root / 'pseudo'
    config = PseudoLabelConfig(
        data=(f'images:{images}',), teacher=teachers[:1], out=str(out), scales=(1.0,), keep=1.0,
        least=0.0,
    )  # fmt: skip

    def label(**changes: object) -> np.ndarray:
        """Return the labels uint8 [2, 48, 64]; there is a guess for every pixel, too."""
        on_disk: list[int] = []
        scene = root / '.pseudo.partial' / 'scene'
        write_pseudo_labels(
            replace(config, **changes), lambda _: on_disk.append(len([*scene.iterdir()]))
        )
        assert on_disk == [2], 'no frame that is labelled waits in memory'
        manifest = (out / 'manifest.json').read_text()
        assert json.loads(manifest)['frames'] == 2 and str(root) not in manifest
        samples = open_dataset(f'paired:{images}:{out}')
        found = [[read_labels(x) for x in (s.label, s.scene) if x] for s in samples]
        masks, guesses = np.stack(found, 1)
        assert (guesses < 11).all() and ((masks == guesses) | (masks == 255)).all()
        return masks

    for keep in (0.0, 0.3, 1.0):
        share = (label(keep=keep) != 255).mean()
        # certainty is stored in 256 steps, so that a whole step is kept at the border
        assert keep - 1e-6 <= share <= min(1.0, keep + 0.3)
    # whoever reads the ids as another taxonomy is told what they mean
    for folder in (out, out / 'scene'):
        about = json.loads((folder / 'taxonomy.json').read_text())
        assert Taxonomy.from_dict(about) == CAMVID11
    with pytest.raises(DataError, match='2 images are called'):
        write_pseudo_labels(replace(config, data=config.data * 2), silent)
    one, other, both = (label(teacher=some) for some in (teachers[:1], teachers[1:], teachers))
    agree = one == other
    assert 0 < agree.sum() < agree.size
    assert (both == np.where(agree, one, 255)).all()
    # labels of an earlier run do not lie amid those of the next; others' files are not touched
    picture = next(images.iterdir())
    imwrite(root / 'single' / picture.name, cv2.imread(str(picture)))
    single = replace(config, data=(f'images:{root}/single',), scales=(0.75, 1.0))
    write_pseudo_labels(single, silent)
    assert [path.stem for path in out.glob('*.png')] == [picture.stem]
    (out / 'corrected.png').touch()
    with pytest.raises(DataError, match="others' files lie in it"):
        write_pseudo_labels(single, silent)
