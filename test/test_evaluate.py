# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg evaluate``: deterministic, resumable, nothing dropped, one pass for many routes."""

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
import re
import shutil
import sys
import threading
from typing import Any

import cv2
from evaluated_drive import (
    config,
    Doomed,
    IMAGE_TOPIC,
    LABEL_TOPIC,
    picture,
    SIZE,
    START,
    STEP,
    truth,
    without_times,
    write_drive,
)
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.evaluate import check_outputs, evaluate, slug
from nightseg_ros.evaluation.inference import prefetch
from nightseg_ros.evaluation.metrics import BootstrapConfig
from nightseg_ros.evaluation.report import read_evaluation
from nightseg_ros.evaluation.report_figures import draw_timelines
from nightseg_ros.evaluation.sources import dataset_shards, sequence_shards, Shard
from nightseg_ros.evaluation.summary import SetScores
from nightseg_ros.evaluation.variants import configurations, Variants
from nightseg_ros.evaluation.workers import WorkerError
from nightseg_ros.outputs import OutputError
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.video import VideoWriter
from nightseg_ros.taxonomy import CAMVID11, Taxonomy
import numpy as np
import pytest
from tiny_data import files_of, imwrite, Killed
from tiny_weights import weights_config

#: The second one has the masks of the first.
ROUTES = (
    'route=day', 'route=day,overlay_alpha=0.4', 'route=night', 'route=translate', 'route=auto',
)  # fmt: skip
FRAMES = 24


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return weights_config(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp('bag') / 'drive', FRAMES, every=2)


@pytest.fixture(scope='module')
def variants(weights):
    return Variants(configurations(config(weights), ROUTES))


@pytest.fixture(scope='module')
def auto(weights):
    return Variants(configurations(config(weights), ()))


def run(variants: Variants, out: Path, *sources: Path, **flags: Any) -> dict[str, Any]:
    names = ('save_labels', 'restart', 'advance')
    settings: Any = {name: flags.pop(name) for name in names if name in flags}
    shards = sequence_shards(sources, **flags)
    return evaluate(shards, variants, out, bootstrap=BootstrapConfig(block_s=0.3), **settings)


def frames_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / 'frames.jsonl').read_text().splitlines()]


def scores_of(out: Path) -> dict:
    return json.loads((out / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def compared(variants, drive, tmp_path_factory):
    out = tmp_path_factory.mktemp('compared')
    run(variants, out, drive, labels=[LABEL_TOPIC], light='day')
    return out


# -- what is measured ------------------------------------------------------------------------


def test_every_frame_goes_through_the_pipeline_once_and_in_order(compared, weights):
    """Masks, states and scores are those of Pipeline.process frame by frame."""
    lines = [line for line in frames_of(compared) if line['run'] == 'drive/route=auto']
    pipeline = Pipeline.load(config(weights))
    assert [line['stamp'] for line in lines] == [START + i * STEP for i in range(FRAMES)]
    for index, line in enumerate(lines):
        frame = Frame(image=picture(index, FRAMES), stamp_ns=line['stamp'])
        [result] = pipeline.process([frame])
        for key in ('state', 'route', 'reason'):
            assert line[key] == getattr(result.decision, key)
        known = truth(index) != 255
        assert line['labelled'] == (0 if index % 2 else known.sum())
        right = (result.labels == truth(index))[known].mean()
        assert line['pixel_acc'] == (None if index % 2 else pytest.approx(right, abs=1e-4))
        assert line['score'] is not None and (line['miou'] is None) == bool(index % 2)
    assert {line['route'] for line in lines} == {'day', 'night'}


def test_configurations_over_the_same_frames(compared, weights, drive, tmp_path):
    """One pass gives each configuration what a pass of its own gives it."""
    together = scores_of(compared)
    assert list(together['runs']) == [f'drive/{name}' for name in ROUTES]
    for name in ('route=translate', 'route=auto'):
        alone = Variants(configurations(config(weights, route=name[6:]), ()))
        found = run(alone, tmp_path / name, drive, labels=[LABEL_TOPIC], light='day')
        expected = {**together['runs'][f'drive/{name}'], 'configuration': ''}
        for entry in (expected, found['runs']['drive']):
            del entry['timing'], entry['samples']
        assert found['runs']['drive'] == expected
    # the automatic route takes the masks of the forced ones
    digests = {line['labels_sha256'] for line in frames_of(compared)}
    assert len(digests) == 3 * FRAMES
    # differences are paired: the same masks differ by nothing in every draw
    for key in ('miou', 'miou9', 'pixel_acc', 'mean_of_sources_miou9'):
        nothing = {'difference': 0, 'median': 0, 'ci': [0, 0], 'above_zero': 0}
        assert together['compare'][0][key] == nothing
    for item in together['compare']:
        assert item['reference'] == 'drive/route=day'
        gap = item['miou']
        scores = [together['runs'][item[key]]['all']['miou'] for key in ('run', 'reference')]
        assert gap['difference'] == pytest.approx(scores[0] - scores[1], abs=2e-4)


def test_what_a_run_says(compared):
    result = scores_of(compared)
    run = result['runs']['drive/route=auto']
    source = result['sets']['drive']['sources'][0]
    assert result['version'] == 2 and result['route'] == 'day'
    assert (run['frames'], run['failed'], run['labelled']) == (FRAMES, 0, FRAMES // 2)
    assert (source['frames'], source['labelled'], source['labels_unused']) == (24, 12, 0)
    assert set(run['by_route']) == {'day', 'night'} == set(run['by_state'])
    assert set(run['by_light']) == {'day'} and set(run['by_source']) == {'drive'}
    for key in ('by_state', 'by_route'):
        total = sum(np.array(entry['confusion']) for entry in run[key].values())
        assert total.tolist() == run['all']['confusion']
    assert run['routing']['switches'] == 1
    # dark from 1.2 s on, half a second of dwell, to the end of 2.4 s
    assert run['routing']['wrong_state_s'] == pytest.approx(0.7)
    assert run['flicker']['all']['pairs'] == FRAMES - 1
    assert run['calibration']['all']['pixels'] == run['all']['pixels']
    assert run['timing']['ms']['network']['p50'] > 0 and run['timing']['frames_per_second'] > 0
    assert {sample['kind'] for sample in run['samples']} >= {'best', 'worst', 'median'}
    for sample in run['samples']:
        ids = cv2.imread(str(compared / sample['labels']), cv2.IMREAD_UNCHANGED)
        assert ids.shape == SIZE and cv2.imread(str(compared / sample['image'])) is not None
        index = int(sample['frame'])
        stored = cv2.imread(str(compared / sample['truth']), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, truth(index))
    assert sorted(os.listdir(compared)) == ['frames.jsonl', 'metrics.json', 'samples']


@pytest.mark.parametrize('backend', ['torch', 'openvino'])
def test_frames_labelled_side_by_side_are_the_same_frames(weights, drive, tmp_path, backend):
    """The same bytes; a size that is new to the networks waits until no frame is in them."""
    images = tmp_path / 'images'
    for index in range(12):
        resized = cv2.resize(picture(index, 12), [(64, 36), (48, 48), (72, 32)][index // 2 % 3])
        imwrite(images / f'{index:02d}.png', resized)
    found = []
    for streams in (1, 3):
        base = config(weights, backend=backend, threads=1)
        several = Variants(configurations(base, ()), streams=streams)
        assert several.streams == streams
        out = tmp_path / str(streams)
        found.append(run(several, out, drive, images, save_labels=True))
        stamps = [line['stamp'] for line in frames_of(out) if line['source'] == 'drive']
        assert stamps == sorted(stamps) and len(stamps) == FRAMES
    assert without_times(found[0]) == without_times(found[1])
    one, other = (files_of(tmp_path / streams / 'labels') for streams in '13')
    assert one == other and len(one) == FRAMES + 12
    # without labels there are no scores, but all that needs none
    entry = found[0]['runs']['recordings']
    assert entry['all']['miou'] is None and entry['all']['miou_ci'] is None
    assert entry['routes']['night'] >= 7 and entry['flicker']['all']['pairs'] == FRAMES - 1
    assert {sample['kind'] for sample in entry['samples']} == {'spread'}
    assert found[0]['compare'] == []


def test_a_folder_and_a_video_with_labels(auto, tmp_path):
    images, labels = tmp_path / 'images', tmp_path / 'labels'
    with VideoWriter(tmp_path / 'v.mp4', 10.0) as video:
        for index in range(6):
            video.add(picture(index, 6))
            imwrite(images / f'{index:06d}.png', picture(index, 6)[..., ::-1])
            imwrite(labels / 'v' / f'{index:06d}.png', truth(index))
            imwrite(labels / f'{index:06d}.png', truth(index))
    (images / '000003.png').write_bytes(b'no picture')
    # the last picture has this stamp for want of a time
    (labels / '000005.png').rename(labels / '500000000.png')
    with pytest.raises(ConfigError, match="'images' and 'v' would take the same labels"):
        sequence_shards([images, tmp_path / 'v.mp4'], labels=[str(labels / 'v')])
    found = run(auto, tmp_path / 'out', images, tmp_path / 'v.mp4', labels=[str(labels)])
    pictures, film = found['sets']['recordings']['sources']
    counted = [pictures[key] for key in ('frames', 'failed', 'labelled', 'labels_unused')]
    assert counted == [5, 1, 4, 2]
    assert '000003.png' in pictures['losses'][0]
    assert (film['frames'], film['labelled']) == (6, 6)
    # pictures by themselves have no time, also beside a drive
    assert pictures['first_stamp'] is None and film['first_stamp'] is not None
    evaluation = read_evaluation(tmp_path / 'out')
    [(title, _)], _ = draw_timelines(tmp_path / 'out' / 'frames.jsonl', evaluation.sets)
    assert title.startswith('v')
    pixels = [line['labelled'] for line in frames_of(tmp_path / 'out') if line['source'] == 'v']
    assert pixels == [(truth(index) != 255).sum() for index in range(6)]
    assert set(found['runs']['recordings']['by_source']) == {'images', 'v'}
    # blocks of the drive beside pictures by themselves: 0.6 s in blocks of 0.3 s, and four
    assert [found['sets']['recordings'][key] for key in ('unit', 'units')] == ['blocks', 2 + 4]
    assert found['runs']['recordings']['routing']['seconds_by_route'] != {}
    # nothing readable is no score and no crash
    for path in images.iterdir():
        path.write_bytes(b'no picture')
    entry = run(auto, tmp_path / 'none', images)['runs']['images']
    assert (entry['frames'], entry['failed'], entry['samples']) == (0, 6, [])
    assert entry['all']['miou'] is None and entry['timing']['frames_per_second'] is None


def test_labels_of_another_taxonomy_are_taken_by_their_names(auto, tmp_path):
    own = Taxonomy(name='own', classes=CAMVID11.classes[::-1], colors=CAMVID11.colors)
    turned = np.where(truth(0) < 255, 10 - truth(0), 255).astype(np.uint8)
    imwrite(tmp_path / 'images' / 'a.png', picture(0, 1)[..., ::-1])
    imwrite(tmp_path / 'plain' / 'a.png', truth(0))
    imwrite(tmp_path / 'own' / 'a.png', turned)
    (tmp_path / 'own' / 'taxonomy.json').write_text(json.dumps(own.to_dict()))
    # beside a folder called labels, and above those of each source
    imwrite(tmp_path / 'set' / 'labels' / 'a.png', turned)
    imwrite(tmp_path / 'each' / 'images' / 'a.png', turned)
    for place in ('set', 'each'):
        shutil.copy(tmp_path / 'own' / 'taxonomy.json', tmp_path / place)
    scores = []
    for labels in ('plain', 'own', 'set/labels', 'each'):
        given: Any = {'labels': [str(tmp_path / labels)], 'taxonomy': CAMVID11}
        found = run(auto, tmp_path / 'out' / labels, tmp_path / 'images', **given)
        scores.append(found['runs']['images']['all'])
    assert scores == scores[:1] * 4 and scores[0]['miou'] is not None


def test_sources_of_one_block_each_give_no_interval(weights, tmp_path):
    drives = [write_drive(tmp_path / name, 2, seed=len(name)) for name in ('a', 'bc')]
    two = Variants(configurations(config(weights), ('route=day', 'route=night')))
    found = run(two, tmp_path / 'out', *drives, labels=[LABEL_TOPIC])
    # all blocks are two, but a source has one to draw from
    assert found['sets']['recordings']['units'] == 2
    [paired] = found['compare']
    assert paired['miou']['ci'] is not None
    mean = paired['mean_of_sources_miou9']
    assert (mean['ci'], mean['above_zero']) == (None, None) and mean['difference'] is not None


def test_a_label_by_its_stamp_scores_one_source(auto, tmp_path):
    """Cameras that are triggered together, each with a bag of its own."""
    drives = [write_drive(tmp_path / name, 2, seed=len(name)) for name in ('a', 'bc')]
    labels = tmp_path / 'labels'
    imwrite(labels / f'{START}.png', truth(0))
    with pytest.raises(ConfigError, match=f"'a' and 'bc' would take the same.*{START}"):
        run(auto, tmp_path / 'out', *drives, labels=[str(labels)])
    imwrite(labels / 'bc' / f'{START}.png', truth(0))
    found = run(auto, tmp_path / 'out', *drives, labels=[str(labels)], restart=True)
    assert [source['labelled'] for source in found['sets']['recordings']['sources']] == [1, 1]


@pytest.mark.parametrize('given', [{'labels': ['/truth']}, {'light': 'dawn'}])
def test_labels_and_light_that_are_not_there_are_said_at_once(drive, tmp_path, given):
    other = write_drive(tmp_path / 'other', 1)
    with pytest.raises(DataError, match='/truth|dawn'):
        sequence_shards([other, drive], **given)
    imwrite(tmp_path / 'images' / 'a.png', picture(0, 1))
    # one picture is no drive
    assert not sequence_shards([tmp_path / 'images' / 'a.png'])[0].sequence
    (tmp_path / 'light.csv').write_text('0,night')
    for name, remedy in (('images', '--rate or --stamps, or a'), ('images/a.png', 'a')):
        with pytest.raises(DataError, match=f'pictures without a time.*give {remedy} state'):
            sequence_shards([tmp_path / name], light=str(tmp_path / 'light.csv'))
    # a state of the light is no file that a result would replace
    assert sequence_shards([other], light='night')[0].inputs == (other,)


@pytest.mark.parametrize(
    ('kind', 'words'),
    [('jpeg', 'write labels as PNG'), ('colour', 'rgb8'), ('size', '64×36'), ('id', 'id 11')],
)
def test_labels_that_are_none_are_named(auto, tmp_path, kind, words):
    labels = {'size': truth(0)[1:], 'id': np.full_like(truth(0), 11)}.get(kind, truth(0))
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_frame(IMAGE_TOPIC, Frame(image=picture(0, 9), stamp_ns=START))
        if kind == 'jpeg':
            content = cv2.imencode('.jpg', labels)[1].tobytes()
            bag.write_compressed(LABEL_TOPIC, content, 'jpeg', stamp_ns=START)
        elif kind == 'colour':
            bag.write_image(LABEL_TOPIC, picture(0, 9), 'rgb8', stamp_ns=START)
        else:
            bag.write_labels(LABEL_TOPIC, labels, stamp_ns=START)
    with pytest.raises(DataError, match=words):
        run(auto, tmp_path / 'out', tmp_path / 'bag', labels=[LABEL_TOPIC])


@pytest.mark.parametrize(
    ('seconds', 'alone'),
    [
        ([1, 1.1, 1.2, 1.7e9, 1.7e9 + 0.1], 0),
        ([1, 1.1, 1.2, 1.7e9, 1.7e9 + 0.1], 9),
        ([1.7e9, 1.7e9 + 0.1, 1.2, 1.3], 0),
        ([5, 5.1, 2e9, 5.3, 5.4], 0),
    ],
    ids=['set ahead', 'set ahead after labels without frames', 'set back', 'one wild stamp'],
)
def test_stamps_that_jump_lose_no_frame_and_no_label(auto, tmp_path, seconds, alone):
    with BagWriter(tmp_path / 'bag') as bag:
        for index, second in enumerate(seconds):
            place = {'stamp_ns': round(second * 10) * STEP, 'received_ns': START + index * STEP}
            for lone in range(alone if index == 3 else 0):
                stamp_ns = round(seconds[2] * 10) * STEP + 1 + lone
                bag.write_labels(LABEL_TOPIC, truth(0), **{**place, 'stamp_ns': stamp_ns})
            bag.write_image(IMAGE_TOPIC, picture(index, 5), 'rgb8', **place)
            # every other frame has labels
            if index % 2:
                bag.write_labels(LABEL_TOPIC, truth(index), **place)
    found = run(auto, tmp_path / 'out', tmp_path / 'bag', labels=[LABEL_TOPIC])
    [source] = found['sets']['bag']['sources']
    counted = (source['frames'], source['labels_unused'], source['losses'])
    assert counted == (len(seconds), alone, [])
    seen = found['runs']['bag']['routing']
    assert sum(seen['seconds_by_state'].values()) < 1 and not seen['changes']
    lines = frames_of(tmp_path / 'out')
    assert [line['stamp'] for line in lines] == [round(s * 10) * STEP for s in seconds]
    pixels = [int((truth(index) != 255).sum()) for index in range(len(seconds))]
    assert [line['labelled'] for line in lines] == [n * (i % 2) for i, n in enumerate(pixels)]


def test_every_camera_of_a_bag_is_a_source(auto, tmp_path):
    topics = ['/left/image_raw', '/right/image_raw']
    labels = ['/left/labels_truth', '/right/labels_truth']
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(4):
            stamp = START + index * STEP
            png = cv2.imencode('.png', truth(index))[1].tobytes()
            for topic, label in list(zip(topics, labels))[: 1 + index % 2]:
                bag.write_frame(topic, Frame(image=picture(index, 4), stamp_ns=stamp))
                bag.write_compressed(label, png, 'png', stamp_ns=stamp)
    sources = run(auto, tmp_path / 'both', tmp_path / 'bag')['sets']['bag']['sources']
    assert [(s['name'], s['frames']) for s in sources] == [('bag:left', 4), ('bag:right', 2)]
    found = run(auto, tmp_path / 'labels', tmp_path / 'bag', topics=topics, labels=labels)
    pixels = [int((truth(index) != 255).sum()) for index in range(4)]
    wanted = [sum(pixels), pixels[1] + pixels[3]]
    assert [e['pixels'] for e in found['runs']['bag']['by_source'].values()] == wanted
    imwrite(tmp_path / 'flat' / '000000.png', truth(0))
    imwrite(tmp_path / 'stamps' / f'{START}.png', truth(0))
    for one in (labels[0], str(tmp_path / 'flat'), str(tmp_path / 'stamps')):
        with pytest.raises(ConfigError, match="'bag:left' and 'bag:right' would take the same"):
            sequence_shards([tmp_path / 'bag'], labels=[one])
    with pytest.raises(ConfigError, match='one topic .* is given twice'):
        sequence_shards([tmp_path / 'bag'], topics=[topics[0], topics[0].strip('/')])
    with pytest.raises(ConfigError, match='a source is given twice'):
        sequence_shards([tmp_path / 'bag', tmp_path / 'here' / '..' / 'bag'])
    with pytest.raises(ConfigError, match='2 --labels came with 1 --topic'):
        sequence_shards([tmp_path / 'bag'], topics=topics[:1], labels=labels)


def test_a_damaged_bag_is_scored_as_far_as_it_goes(auto, tmp_path):
    # an MCAP file this small is a single chunk, of which a cut leaves nothing
    drive = write_drive(tmp_path / 'drive', FRAMES, every=2, storage='sqlite3')
    [storage] = drive.glob('*.db3')
    broken = tmp_path / 'broken.db3'
    broken.write_bytes(storage.read_bytes()[: storage.stat().st_size * 2 // 3])
    whole = run(auto, tmp_path / 'whole', drive)
    found = run(auto, tmp_path / 'out', broken)
    source = found['sets']['broken']['sources'][0]
    assert 0 < source['frames'] < FRAMES and source['losses']
    kept, every = frames_of(tmp_path / 'out'), frames_of(tmp_path / 'whole')
    assert len(kept) == source['frames'] == found['runs']['broken']['frames']
    assert [x['labels_sha256'] for x in kept] == [x['labels_sha256'] for x in every[: len(kept)]]
    assert whole['sets']['drive']['sources'][0]['losses'] == []


def test_names_of_any_length_become_folders(tmp_path, monkeypatch):
    assert slug('a b/c.d') == 'a_b_c.d'
    # none leads elsewhere, and only a file's name has a suffix
    assert slug('') == slug('..') == '_'
    folders = [tmp_path / name for name in ('run_10.15', 'run_10.30')]
    for folder in folders:
        imwrite(folder / 'a.png', picture(0, 1))
    assert [shard.source for shard in sequence_shards(folders)] == ['run_10.15', 'run_10.30']
    monkeypatch.chdir(folders[0])
    assert {shard.set_name for shard in dataset_shards(['images:.'], CAMVID11)} == {'run_10.15'}
    long = [slug('x' * 300 + end) for end in 'ab']
    assert len({*long}) == 2 and max(map(len, long)) <= 80


# -- interruptions ---------------------------------------------------------------------------


@pytest.fixture(scope='module')
def shorter(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp('bag') / 'shorter', 6, every=3, seed=1)


WHOLE: dict[str, Any] = {'labels': [LABEL_TOPIC], 'light': 'day'}


@pytest.fixture(scope='module')
def whole(variants, drive, shorter, tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')
    run(variants, out, drive, shorter, **WHOLE)
    return out


@pytest.mark.parametrize('at', [5, FRAMES + 2])
def test_an_interruption_redoes_only_the_open_shard(variants, drive, shorter, whole, tmp_path, at):
    def stop(done: int) -> None:
        if done >= at:
            raise Killed

    out = tmp_path / 'out'
    with pytest.raises(Killed):
        run(variants, out, drive, shorter, advance=stop, **WHOLE)
    # as a killed process leaves it
    (out / '.shards' / '.00001-abc.npz').write_bytes(b'half')
    told: list[int] = []
    run(variants, out, drive, shorter, advance=told.append, **WHOLE)
    assert told[0] == (FRAMES if at > FRAMES else 1) and told[-1] == FRAMES + 6
    # all but times is that of an evaluation that was left alone
    assert without_times(scores_of(out)) == without_times(scores_of(whole))
    ours, theirs = ([{**line, 'ms': 0} for line in frames_of(path)] for path in (out, whole))
    assert ours == theirs
    assert files_of(out / 'samples') == files_of(whole / 'samples') != {}


def test_going_on_with_something_else_is_refused(auto, drive, tmp_path):
    def stop(done: int) -> None:
        for restart in (False, True):
            with pytest.raises(ConfigError, match='another process is at work'):
                run(auto, tmp_path, drive, restart=restart)
        raise Killed

    with pytest.raises(Killed):
        run(auto, tmp_path, drive, advance=stop)
    with pytest.raises(ConfigError, match='other sources.*--restart'):
        run(auto, tmp_path, drive, labels=[LABEL_TOPIC])
    found = run(auto, tmp_path, drive, labels=[LABEL_TOPIC], restart=True)
    assert found['runs']['drive']['labelled'] == FRAMES // 2


def test_a_run_that_is_killed_as_it_writes_leaves_no_mixture(auto, drive, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise Killed

    run(auto, tmp_path, drive)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SetScores, '__init__', stop)
        run(auto, tmp_path, drive)
    assert not (tmp_path / 'metrics.json').exists()
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match='other versions'):
        patch.setattr('nightseg_ros.evaluation.evaluate.__version__', '0.1')
        run(auto, tmp_path, drive)
    # half removed: finished shards without the plan that they are of
    (tmp_path / '.shards' / 'plan.json').unlink()
    (tmp_path / 'metrics.json').write_text('{"runs": {}}')
    found = run(auto, tmp_path, drive, labels=[LABEL_TOPIC])
    assert found['runs']['drive']['labelled'] == FRAMES // 2


def test_prefetching_is_bounded_keeps_the_order_and_ends_with_its_reader():
    before, numbers, seen = threading.active_count(), iter(range(10)), []
    reader = prefetch((number for number in numbers), depth=3)
    assert next(reader)[0] == 0
    reader.close()
    assert next(numbers) <= 4 and threading.active_count() == before
    with pytest.raises(ZeroDivisionError):
        for item, _ in prefetch((number // (number != 9) for number in range(10)), depth=2):
            seen.append(item)
    assert seen == [*range(9)]


# -- several processes, and a Ray cluster -----------------------------------------------------


@pytest.fixture(scope='module')
def drives(weights, tmp_path_factory):
    """Return variants of two routes, the shards of three drives, and their scores."""
    folder = tmp_path_factory.mktemp('fleet')
    variants = Variants(configurations(config(weights, threads=1), ('route=day', 'route=auto')))
    paths = [write_drive(folder / f'drive{n}', FRAMES, every=3, seed=n) for n in range(3)]
    shards = sequence_shards(paths, labels=[LABEL_TOPIC], name='drives')
    return variants, shards, evaluate(shards, variants, folder / 'alone')


@pytest.mark.parametrize('fleet', ['processes', 'ray'])
def test_a_killed_worker_is_replaced_and_counts_once(
    fleet, tmp_path, drives, monkeypatch, capfd, caplog
):
    if fleet == 'ray':
        reason = "Ray is not installed: pip install 'nightseg[fleet]'"
        cloudpickle = pytest.importorskip('ray.cloudpickle', reason=reason)
        # the workers do not know the tests' modules
        cloudpickle.register_pickle_by_value(sys.modules[Doomed.__module__])
        monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    mark, out = tmp_path / 'killed', tmp_path / 'out'
    variants, (first, second, third), alone = drives
    fields = {field.name: getattr(second, field.name) for field in dataclasses.fields(Shard)}
    # near its end
    doomed = Doomed(**fields, mark=mark, after=FRAMES - 4)
    settings = {'save_labels': True, 'ray': 'local'} if fleet == 'ray' else {}
    found = evaluate((first, doomed, third), variants, out, workers=2, **settings)
    assert int(mark.read_text()) != os.getpid()
    assert without_times(found) == without_times(alone)
    if fleet == 'ray':
        assert caplog.messages == ['read to its end']
    else:
        assert capfd.readouterr().err.count('WARNING: read to its end\n') == 1
    count = 3 * FRAMES * 2
    assert len((out / 'frames.jsonl').read_text().splitlines()) == count
    masks = list((out / 'labels').rglob('*.png'))
    assert len(masks) == (count if fleet == 'ray' else 0)


def test_an_error_in_a_worker_is_told_as_in_this_process(tmp_path, drives):
    variants, shards, _ = drives
    wrong = dataclasses.replace(shards[0], labels=str(tmp_path / 'labels'))
    for workers in (1, 2):
        with pytest.raises(DataError, match='labels .* are no folder, and .* has no image topic'):
            evaluate([wrong], variants, tmp_path / str(workers), workers=workers)
    # the others end with it, however many wait
    before = {*multiprocessing.active_children()}
    many = [dataclasses.replace(shards[n % 3], source=str(n)) for n in range(60)]
    with pytest.raises(DataError):
        evaluate([wrong, *many], variants, tmp_path / 'many', workers=2)
    assert {*multiprocessing.active_children()} <= before
    assert len([*(tmp_path / 'many' / '.shards').glob('*.npz')]) < len(many) / 2


def test_without_ray_the_extra_is_named(tmp_path, drives, monkeypatch):
    variants, shards, _ = drives
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(WorkerError, match=r"pip install 'nightseg\[fleet\]'"):
        evaluate(shards, variants, tmp_path, ray='local')


# -- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('compare', 'words'),
    [
        (['route=noon'], 'noon'),
        (['router.table.noon=day'], "unknown key 'router.table.noon'"),
        (['route'], 'KEY=VALUE'),
        (['route=day', 'route=day'], 'twice'),
        (['threads=many'], 'threads'),
    ],
)
def test_wrong_configurations_are_named(weights, compare, words):
    with pytest.raises(ConfigError, match=words):
        configurations(config(weights), compare)
    changes = 'route=night,long_side=96,router.dwell_dark_s=1,router.table.dusk=day'
    [made] = configurations(config(weights), [changes]).values()
    assert (made.route, made.long_side, made.backend) == ('night', 96, 'torch')
    assert made.router.dwell_dark_s == 1.0 and made.router.table.dusk == 'day'


def test_saved_masks_never_overwrite_one_another(auto, tmp_path):
    for name in ('in/road.png', 'in/road.jpg', 'in/town.png', 'in !/a.png', 'in ?/a.png'):
        imwrite(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    shards = dataset_shards([f'images:{tmp_path}/in'], CAMVID11)
    check_outputs(shards, tmp_path, save_labels=False)
    found = evaluate(shards, auto, tmp_path / 'out')
    [run] = found['runs'].values()
    shown = [shot['image'] for shot in run['samples']]
    assert len(set(shown)) == len(shown) == 3
    with pytest.raises(ConfigError, match="2 pictures of .* are called 'road'"):
        check_outputs(shards, tmp_path, save_labels=True)
    alike = sequence_shards([tmp_path / 'in !', tmp_path / 'in ?'])
    with pytest.raises(ConfigError, match="2 sources of 'recordings' are called 'in_'"):
        check_outputs(alike, tmp_path, save_labels=True)


def test_only_own_results_are_replaced_and_masks_go_with_their_scores(auto, drive, tmp_path):
    for save_labels in (True, False):
        run(auto, tmp_path, drive, save_labels=save_labels)
        assert (tmp_path / 'labels').exists() is save_labels
    # a person's own, beside an evaluation that wrote none
    own = tmp_path / 'labels' / drive.stem / f'{START}.png'
    imwrite(own, truth(0))
    for labels in ((), (str(own.parents[1]),), ()):
        run(auto, tmp_path, drive, labels=labels)
        assert own.exists()
    with pytest.raises(OutputError, match=r"labels' is a folder that nightseg did not write"):
        run(auto, tmp_path, drive, save_labels=True)


def test_the_command(weights, drive, tmp_path, capsys):
    flags = ['--device', 'cpu', '--backend', 'torch', '--no-report']
    flags += [f'--weights-{name}={path}' for name, path in dataclasses.asdict(weights).items()]
    flags += ['--out', str(tmp_path / 'out')]
    for name in (START, 'stranger'):
        imwrite(tmp_path / 'labels' / f'{name}.png', truth(0))
    command = ['evaluate', str(drive), '--labels', str(tmp_path / 'labels'), *flags]
    assert main([*command, '--compare', 'route=day', 'route=night', '--streams', '2']) == 0
    said, warned = capsys.readouterr()
    assert 'drive, drive: labels without a frame: 1' in warned
    assert re.search(r'drive/route=day\b.*\n(.*\n)* *all +\d+ ', said)
    assert re.search(r'drive/route=night − drive/route=day: mIoU [+-]0', said)
    result = scores_of(tmp_path / 'out')
    assert result['streams'] == 2
    assert result['command'][:2] == ['nightseg', 'evaluate'] and result['wall_s'] > 0
