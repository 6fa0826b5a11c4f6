# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The command line: light help, clear errors, and predictions that are all there."""

import importlib
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import cv2
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli import machine
from nightseg_ros.cli.machine import Setup
from nightseg_ros.cli.main import main, VERBS
from nightseg_ros.cli.options import PipelineOptions, Progress
from nightseg_ros.cli.processes import node_parameters
from nightseg_ros.data import pictures
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.files import LOG
from nightseg_ros.node.main import main as run_node
from nightseg_ros.perception.frame import Frame
from nightseg_ros.weights import load_weights, read_manifest
import numpy as np
import onnxruntime
import pytest
from tiny_data import imwrite
from tiny_weights import weight_flags, write_segmenter
import yaml

SCRIPTS = sorted((Path(__file__).parent.parent / 'bench').glob('*.py'))
HEAVY = ('torch', 'cv2', 'numpy', 'rclpy', 'onnxruntime', 'openvino', 'rosbags')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return [*weight_flags(folder), '--backend', 'torch', '--device', 'cpu']


def street(dark: bool, height: int = 60) -> np.ndarray:
    """Return a picture that the tests' estimator calls day, or night if ``dark``."""
    image = np.random.default_rng(0).integers(150, 159, (height, 100, 3), np.uint8)
    if dark:
        middle = height // 2
        image[middle:] = 0
    return image


def test_help_imports_nothing_heavy():
    verbs = ['', *(verb for verb in VERBS if not verb.startswith('train '))]
    code = f"""
import sys
from nightseg_ros.cli.main import main
for verb in {verbs!r}:
    try:
        code = main([*verb.split(), '--help'])
    except SystemExit as stop:
        code = stop.code
    heavy = set(sys.modules) & set({HEAVY!r})
    assert not code and not heavy, (verb, code, heavy)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('usage: nightseg') == len(verbs)


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('evalute', "did you mean 'evaluate'?"),
        ('bag mak', '`nightseg bag --help` lists all: make, predict, info'),
        ('--quite', "no option '--quite'"),
        ('predict a.png --out o --weights-day rendered_dai', "did you mean 'rendered_day'"),
        ("predict a.png --out o --route translate --weights-translator ''",
         '--weights-translator translator'),
        ('predict a.png --out a.png', 'is a file'),
        ('evaluate a.png --out o --compare rout=day', "did you mean 'route'"),
        ('evaluate a.png --out o --classes cars', "did you mean 'car'?"),
        ('evaluate --dataset camvit:x --out o', "did you mean 'camvid'"),
        ('evaluate bag --out o --sources *=x', '--sources has no effect on bags'),
        ('evaluate --dataset images:. --out o --sources street', "'street' is no PATTERN=NAME"),
        ('evaluate --dataset images:. --out o --labels x', '--labels has no effect on data sets'),
        ('evaluate bag --out o --rate 5', '--rate is of folders and videos'),
        ('evaluate bag --out o --streams 2 --workers 2', '--streams is of one process'),
        ('predict bag --out o --rate 5', '--rate is of folders and videos'),
        ('predict bag --out o --topic /front/image', "did you mean '/front/image_raw'?"),
        ('bag predict bag --out o --topic /frnt/image_raw', "did you mean '/front/image_raw'?"),
        ('predict nowhere.mp4 --out x', "'nowhere.mp4' does not exist"),
        ('train painter', "no verb 'train painter'"),
        ('train segmenter --config nowhere.yaml', 'nowhere.yaml'),
        ('train soup --weights nowhere none --out x', 'nowhere'),
        ('train pseudo_labels --data images:x --teacher nowhere --out x', 'nowhere'),
        ('train translator --data images:nowhere --out x', 'nowhere'),
        ('train fast_translator --data images:nowhere --segmenter none --out x', 'none'),
        ('calibrate --weights nowhere --data images:none', 'nowhere'),
        ('bag predict nowhere --out x', "bag 'nowhere' does not exist"),
        # a name that is no UTF-8
        ('bag info b\udcff', 'does not exist'),
        ('bench --out a.png', 'is a file'),
        ('translate a.png --weights translator --out o --long-side 3', '64 to 4096'),
        ('translate a.png --weights translator --out o --style moon', "know no camera 'moon'"),
        ('evaluate --out o', '--dataset'),
        ('evaluate bag --out o --topic /rear', '/front/image_raw'),
        ('evaluate bag --out o --workers 0', "'workers' must be at least 1, got 0"),
        ('evaluate a.png --out o --resamples 0', 'got 0'),
        ('evaluate a.png --out o --threads 999', '0 to 256, got 999'),
        ('predict a.png --out o --long-side 9', '64 to 4096'),
        ('run none.mp4', 'does not exist'),
        ('run topic:', 'needs names'),
        ('run a.png --fps 0', "'fps' must be 0.001 to 9999, got 0.0"),
        ('run a.png --out empty', 'give another name'),
        ('run a.png --topic /a /b', "no topic '/a'"),
        ('run bag --fps 5', '--fps has no effect on a bag'),
        ('run topic:/front/image_raw --loop', '--loop has no effect on what is live'),
        ('run /dev/video9 --loop', '--loop has no effect on a URL or a camera'),
        ('replay rtsp://cam/ --loop', '--loop has no effect on a URL or a camera'),
        ('replay bag --stamps x', '--stamps has no effect on a bag'),
        ('replay bag --all --topic /x', '--topic has no effect on a replay with --all'),
        ('replay bag --all --also /x', '--also has no effect on a replay with --all'),
        ('replay bag --labels /x', '--lockstep'),
        ('replay nowhere', "'nowhere' does not exist"),
        ('replay . --rate 0', '--rate must be above 0'),
        ('replay . --log here', "'here' lies in the input '.'"),
        ('replay . --stamps a --log a', 'give an output apart from it'),
        ('replay . --lockstep --all', '--lockstep plays images alone'),
        ('replay . --seconds -1', "'seconds' must be at least 0"),
        ('replay . --patience nan', "'patience' must be at least 0, got nan"),
        ('record .', "'.' is no name for a bag"),
        ('record o --seconds -1', "'seconds' must be at least 0"),
        ("replay bag --remap-to 'a b'", "'a b' is no name"),
        ("record o --cameras a '/b c/'", "'b c' is no name"),
        ('bag make bag --out o', '`nightseg bag predict` copies bags'),
        ('bag make a.png --out o --topic /', "'/' is no topic"),
        ("bag make a.png --out o --topic 'front camera'", "'front camera' is no topic"),
        ('bag make a.png --out o --topic /1st/image', "'/1st/image' is no topic"),
        ('data check images:. --json empty', 'give another name'),
        ('data check nothing', 'ADAPTER:ROOT'),
        ('data extract a.png --out o --every -1 --rate 1', "'every'"),
        ('data extract . --out o --rate 0', 'rate is above 0'),
        ('import segformer . --out o', 'it needs transformers: pip install transformers'),
        ('view --port 99999', "'port' must be 0 to 65535, got 99999"),
        ('view --rerun a.png', 'give another name'),
        ("run a.png --host ''", '--host needs an address'),
        ('render --out o --count 0', "'count' must be at least 1, got 0"),
        ('train segmenter --data folder:x --out o --seed -1', "'seed' must be at least 0"),
        ('train segmenter --data folder:x --out o --augment.flip 2',
         "'flip' must be 0 to 1, got 2.0"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_exit_with_2(command, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'transformers', None)
    # what can be known beforehand is said before networks are loaded
    monkeypatch.setattr('nightseg_ros.perception.pipeline.Pipeline.__init__', None)
    imwrite(tmp_path / 'a.png', street(dark=False))
    (tmp_path / 'empty').mkdir()
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_frame('/front/image_raw', Frame(image=street(dark=False), stamp_ns=1))
    assert main([*shlex.split(command), '--quiet']) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


@pytest.mark.parametrize(
    ('flag', 'value', 'words'),
    [
        ('route', 'nigt', "'nigt' is none of auto, day, night, translate; did you mean 'night'?"),
        ('rate', 'fast', "Error parsing --rate: FLOAT is wanted, got 'fast'"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_named(capsys, flag, value, words):
    with pytest.raises(SystemExit, match='2'):
        main(['predict', 'a.png', '--out', 'x', f'--{flag}', value])
    assert words in ' '.join(capsys.readouterr().err.replace('│', ' ').split())


@pytest.mark.parametrize('verb', ['run', 'demo', 'replay', 'view'])
@pytest.mark.parametrize(('package', 'words'), [
    (None, 'this needs ROS 2'),
    # as sourced beside an environment of another Python
    ([], "'/opt/rclpy' was built"),
    # Humble
    (['_rclpy_pybind11.py'], "'/opt/rclpy' is of a ROS 2 that is too old"),
])  # fmt: skip
def test_without_ros_a_verb_that_needs_it_says_so(
    verb, package, words, tmp_path, capsys, monkeypatch
):
    spec = ModuleSpec('rclpy', None, origin='/opt/rclpy', is_package=True)
    spec.submodule_search_locations = [str(tmp_path / 'in')]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        'nightseg_ros.cli.bags.find_spec', lambda name: None if package is None else spec
    )
    imwrite(tmp_path / 'in' / 'a.png', street(dark=False))
    for name in package or ():
        (tmp_path / 'in' / name).touch()
    assert main([verb, *(['in'] if verb in ('run', 'replay') else [])]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f'nightseg {verb}: {words}')
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_without_ros_the_node_says_so(capsys, monkeypatch):
    monkeypatch.setattr('nightseg_ros.node.main.find_spec', lambda name: None)
    monkeypatch.setattr(sys, 'argv', ['night_perception', '--help'])
    with pytest.raises(SystemExit, match='2'):
        run_node()
    assert capsys.readouterr().err.startswith('night_perception: this needs ROS 2')


def test_an_interrupted_prediction_does_not_look_whole_and_can_be_made_again(
    tmp_path, capsys, weights, monkeypatch
):
    for name in 'abc':
        imwrite(tmp_path / 'in' / f'{name}.png', street(dark=False))
    out = tmp_path / 'out'
    command = ['predict', str(tmp_path / 'in'), '--out', str(out), *weights]
    assert main(command) == 0
    real, written = pictures.write_picture, list[Any]()

    def write(*given: Any) -> None:
        written.append(given)
        if len(written) == 4:
            raise KeyboardInterrupt
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, 'write_picture', write)
        capsys.readouterr()
        assert main([*command, '--quiet']) == 130
    assert capsys.readouterr().err == 'nightseg predict: interrupted\n'
    assert not (out / 'predictions.jsonl').exists()
    assert main(command) == 0 and not [*out.glob('.*')]
    assert len((out / 'predictions.jsonl').read_text().splitlines()) == 3


def test_a_folder_with_a_broken_file(tmp_path, capsys, weights):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    imwrite(folder / 'bright.png', street(dark=False))
    imwrite(folder / 'dark.png', street(dark=True, height=40))
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8 torn')
    # what an earlier run left of the frame that is broken now
    (out / 'labels').mkdir(parents=True)
    (out / 'labels' / 'broken.png').touch()
    (out / 'predictions.jsonl').touch()

    for flags in ([], ['-q']):
        assert main(['predict', str(folder), '--out', str(out), *weights, *flags]) == 1
        assert 'skipped: ' in (said := capsys.readouterr().err) and 'broken.jpg' in said
    sizes = {'bright': (60, 100), 'dark': (40, 100)}
    assert {p.stem for p in (out / 'labels').iterdir()} == set(sizes)
    for stem, size in sizes.items():
        labels = cv2.imread(str(out / 'labels' / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        confidence = cv2.imread(str(out / 'confidence' / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        overlay = cv2.imread(str(out / 'overlay' / f'{stem}.jpg'))
        assert labels.shape == confidence.shape == overlay.shape[:2] == size
        assert labels.dtype == np.uint8 and labels.max() < 11
    lines = [json.loads(x) for x in (out / 'predictions.jsonl').read_text().splitlines()]
    assert {line['frame']: line['route'] for line in lines} == {'bright': 'day', 'dark': 'night'}
    for line in lines:
        assert set(line) == {
            'frame', 'stamp', 'score', 'state', 'route', 'reason', 'reliability', 'ms'
        }  # fmt: skip
        assert 0 <= line['score'] <= 1 and line['reason'] and line['ms']['network'] > 0
        assert 0 < line['reliability'] < 1
    assert not list(out.rglob('.*'))


def test_a_bag_is_a_drive(tmp_path, weights):
    out = tmp_path / 'out'
    with BagWriter(tmp_path / 'drive') as bag:
        for index in range(8):
            frame = Frame(image=street(dark=index >= 3), stamp_ns=10**18 + index * 200_000_000)
            bag.write_frame('/camera/image_raw', frame)
            bag.write_frame('/rear/image_raw', frame)
    flags = ['--topic', '/camera/image_raw', *weights]
    assert main(['predict', str(tmp_path / 'drive'), '--out', str(out), *flags]) == 0
    lines = [json.loads(x) for x in (out / 'predictions.jsonl').read_text().splitlines()]
    assert [line['frame'] for line in lines] == [f'{i:06d}' for i in range(8)]
    assert [line['stamp'] for line in lines] == [10**18 + i * 200_000_000 for i in range(8)]
    # dark from 0.6 s on; half a second later it counts
    assert [line['route'] for line in lines] == ['day'] * 6 + ['night'] * 2


def test_a_bag_is_copied_with_its_predictions(tmp_path, capsys, weights):
    bag, copy = tmp_path / 'drive', tmp_path / 'copy'
    with BagWriter(bag) as writer:
        for index in range(3):
            frame = Frame(image=street(dark=index > 0), stamp_ns=10**18 + index * 10**9)
            writer.write_frame('/camera/image_raw', frame)
            writer.write_frame('/rear/image_raw', frame)
    flags = ['--topic', '/rear/image_raw', '--outputs', 'labels', 'status']
    arguments = ['bag', 'predict', str(bag), '--out', str(copy), *flags, *weights]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert f"3 frames predicted in '{copy}'; routes: day 2, night 1" in shown
    with BagReader(copy) as reader:
        names = {topic.name for topic in reader.topics}
        rear = {f'/rear/{name}' for name in ('image_raw', 'nightseg/labels', 'nightseg/status')}
        assert names == {'/camera/image_raw', *rear}
    assert main(arguments) == 2
    assert 'exists' in capsys.readouterr().err
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    with BagWriter(bag, force=True) as writer:
        for index in range(3):
            writer.write_frame('/rear/image_raw', Frame(image=noise, stamp_ns=10**18 + index))
    file = bag / 'drive.mcap'
    file.write_bytes(file.read_bytes()[: int(0.8 * file.stat().st_size)])
    assert main([*arguments, '--force']) == 1
    shown = capsys.readouterr()
    assert '2 frames predicted' in shown.out and '2 of about 3 messages read' in shown.err
    assert 'some frames could not be read (see above)' in shown.err


@pytest.mark.parametrize(
    'arguments',
    ['cli.main --help', 'cli.main predict --help', 'cli.main info', 'node.main --help'],
)
def test_a_reader_that_leaves_early_is_no_error(arguments):
    # the shell waits until the reader has left
    command = f'(sleep 0.2; exec {sys.executable} -m nightseg_ros.{arguments}) | true'
    script = f'{command}; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', script], capture_output=True, text=True)
    assert done.stdout == '141\n' and not done.stderr, done.stderr


def test_help_lists_every_verb_and_names_what_is_wanted(capsys):
    assert main(['--help']) == 0
    shown = capsys.readouterr().out
    assert all(f'  {verb} ' in shown for verb in VERBS if ' ' not in verb)
    assert main(['bag']) == 2
    assert '  make ' in capsys.readouterr().out
    for verb, words in (
        ('evaluate', '[SOURCE]'), ('predict', ' SOURCE'), ('paint', ' BAG'), ('report', ' DIR'),
        ('evaluate', '--dataset TEXT ...'), ('predict', '--rate FLOAT'),
        ('predict', 'Label every frame'), ('train segmenter', '--augment.flip FLOAT'),
    ):  # fmt: skip
        with pytest.raises(SystemExit, match='0'):
            main([*verb.split(), '--help'])
        shown = capsys.readouterr().out
        assert words in shown and '[[' not in shown and '{None}' not in shown, verb
    assert main(['-V']) == main(['--version']) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and first.startswith('nightseg ')


@pytest.mark.parametrize(('flag', 'notes'), [('', True), ('--quiet', False), ('-q', False)])
def test_a_folder_says_what_it_left_out_unless_quiet(tmp_path, capsys, weights, flag, notes):
    folder = tmp_path / 'in'
    (folder / 'more').mkdir(parents=True)
    (folder / 'notes.txt').touch()
    for name in ('a.tif', 'b.TIFF'):
        imwrite(folder / name, street(dark=False))
    out = str(tmp_path / 'out')
    assert main(['predict', str(folder), '--out', out, *weights, *filter(None, [flag])]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"2 frames labelled in '{out}'; routes: day 2\n"
    assert ('not read: subfolders more; files .txt' in shown.err) == notes == bool(shown.err)
    assert {path.name for path in (tmp_path / 'out' / 'labels').iterdir()} == {'a.png', 'b.png'}


@pytest.mark.ros
@pytest.mark.parametrize(('module', 'name', 'parameter'), [
    ('main', 'night_perception', 'min_reliability (double, 0.65) [0 to 1]'),
    ('semantic_cloud', 'semantic_cloud', "odometry (string, '')"),
])  # fmt: skip
def test_a_node_prints_help_and_names_a_missing_file(module, name, parameter, tmp_path):
    command = [sys.executable, '-m', f'nightseg_ros.node.{module}']
    done = subprocess.run([*command, '--help'], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f'usage: {name} [--ros-args') and parameter in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    missing = ['--ros-args', '--params-file', str(tmp_path / 'nowhere.yaml')]
    for given, words in ((missing, 'nowhere.yaml'), (['--halp'], "'--halp' is no argument")):
        done = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and last.startswith(f'{name}: ') and words in last


def test_a_node_gets_every_name_and_progress_shows_it(capsys):
    given = {'weights_day': 'a "b"\\c.x', 'weights_translator': '', 'long_side': 64}
    found = node_parameters(PipelineOptions(**given))
    for name, value in given.items():
        assert yaml.safe_load(found[name.replace('weights_', 'weights.')]) == value
    LOG.setLevel('WARNING')
    with Progress('run', None) as progress:
        progress.show(0, None, '[/front/image_raw]')
    assert '[/front/image_raw]' in capsys.readouterr().err


def test_verbose_shows_where_an_error_comes_from(tmp_path):
    with pytest.raises(DataError, match='does not exist'):
        main(['predict', str(tmp_path / 'nix.mp4'), '--out', 'x', '--verbose'])


@pytest.mark.parametrize(
    'locale',
    [
        {'PYTHONIOENCODING': 'ascii'},
        {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
    ],
    ids=['terminal', 'file names'],
)
def test_a_locale_that_is_not_utf8_costs_characters_only(tmp_path, locale):
    imwrite(tmp_path / 'nächt' / 'straße.png', street(True))
    for arguments in ('bag make nächt --out fährt', 'data check images:nächt'):
        command = [sys.executable, '-m', 'nightseg_ros.cli.main', *arguments.split()]
        environment = {**os.environ, **locale}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
    with BagReader(tmp_path / 'fährt') as bag:
        assert [topic.count for topic in bag.topics] == [1]


@pytest.mark.parametrize('closed', [1, 2])
def test_a_closed_stream_costs_its_words_only(tmp_path, closed):
    imwrite(tmp_path / 'im' / 'a.png', street(True))
    command = f'{sys.executable} -m nightseg_ros.cli.main data check images:im {closed}>&-'
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0


def test_info_as_json(tmp_path, capsys, monkeypatch):
    (tmp_path / 'models').mkdir()
    write_segmenter(tmp_path / 'models' / 'rendered_illumination.safetensors')
    (tmp_path / 'models' / 'torn.safetensors').write_bytes(b'torn')
    monkeypatch.setenv('NIGHTSEG_SHARE', str(tmp_path))
    assert main(['info', '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['versions']['nightseg'] and facts['versions']['torch']
    assert facts['backends']['torch'] is True
    providers = onnxruntime.get_available_providers()
    assert facts['backends']['tensorrt'] is ('TensorrtExecutionProvider' in providers)
    assert any(device.startswith('cpu') for device in facts['devices'])
    mine, torn = facts['weights']
    assert (mine['name'], mine['taxonomy']) == ('rendered_illumination', 'camvid11')
    assert len(mine['sha256']) == 64 and mine['license']
    assert torn['name'] == 'torn' and 'torn' in torn['error']
    # neither ROS nor any other package is found
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    absent = Mock(side_effect=PackageNotFoundError)
    monkeypatch.setattr(machine.metadata, 'version', absent)
    assert main(['info']) == 0
    shown = capsys.readouterr().out
    assert f' rendered_illumination {mine["sha256"][:12]} ' in shown and 'torn' in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if str(tmp_path) not in line)


def test_training_reads_a_strict_file_and_flags_win(tmp_path, capsys, monkeypatch):
    import nightseg_ros.training.segmenter as recipe

    seen = []
    monkeypatch.setattr(recipe, 'train_segmenter', lambda config: seen.append(config) or 'made')
    file = tmp_path / 'recipe.yaml'
    file.write_text('data: [folder:a, folder:b]\nsteps: 7\narch: {variant: tiny}\n')
    command = ['train', 'segmenter', '--config', str(file)]
    flags = ['--steps', '9', '--augment.flip', '0.25']
    assert main([*command, '--out', 'there', *flags]) == 0
    [config] = seen
    assert capsys.readouterr().out == "weights: 'made'\n"
    assert (config.data, config.out, config.steps) == (('folder:a', 'folder:b'), 'there', 9)
    assert config.arch == {'variant': 'tiny'} and config.augment.flip == 0.25
    with pytest.raises(SystemExit, match='2'):
        main(command)
    assert '--out' in capsys.readouterr().err
    file.write_text('data: [folder:a]\nout: here\nstepz: 7\n')
    assert main(command) == 2
    assert "unknown key 'stepz'" in capsys.readouterr().err


def test_render_writes_a_data_set_that_training_reads(tmp_path, capsys):
    out = tmp_path / 'set'
    flags = ['render', '--out', str(out), '--count', '3', '--size', '96', '64', '--light', 'night']
    assert main(flags) == 0
    samples = open_dataset(f'folder:{out}')
    assert len(samples) == 3
    assert json.loads((out / 'taxonomy.json').read_text())['name'] == 'camvid11'
    for sample in samples:
        labels = read_labels(sample.label)
        assert read_image(sample.image).shape == (64, 96, 3)
        assert labels.shape == (64, 96) and {3} < {*labels.flat} <= {*range(11), 255}
    first = samples[0].image.read_bytes()
    assert main(flags) == 2
    assert '--force' in capsys.readouterr().err
    assert main([*flags, '--force']) == 0
    assert samples[0].image.read_bytes() == first


def test_publish_ships_weights_with_scores_and_a_valid_manifest(tmp_path, capsys):
    trained = write_segmenter(tmp_path / 'trained.safetensors')
    metrics = tmp_path / 'metrics.json'
    entry = {'miou': 0.5, 'miou9': 0.6, 'pixel_acc': 0.9}
    run = {'all': entry, 'mean_of_sources_miou9': 0.55}
    used = {'sha256': load_weights(trained).sha256}
    # as of --compare: what other weights scored is not theirs
    scores = {'configurations': [
        {'name': route, 'options': {'route': route}, 'pipeline': {'weights': {route: part}}}
        for route, part in (('night', {'sha256': 'of others'}), ('day', used))
    ]}  # fmt: skip
    run['configuration'] = 'day'
    other = {**run, 'configuration': 'night'}
    runs = {'camvid:day_test': run, 'night_dev': other}
    metrics.write_text(json.dumps({**scores, 'runs': runs}))
    models = tmp_path / 'models'
    flags = ['publish', str(trained), '--name', 'mine', '--models', str(models)]
    assert main([*flags, '--metrics', str(metrics)]) == 0
    shipped = load_weights(models / 'mine.safetensors')
    assert read_manifest(models)['mine.safetensors'] == shipped.sha256
    assert shipped.metadata.metrics['camvid:day_test']['miou9'] == 0.6
    assert shipped.path.stat().st_size < 0.7 * trained.stat().st_size
    assert {*shipped.metadata.metrics} == {'camvid:day_test', 'route'}
    bare = {**run, 'all': dict.fromkeys(entry), 'mean_of_sources_miou9': None}
    for runs, words in (({}, 'make it anew'), ({'runs': {'night': bare}}, "no scores of 'night'")):
        metrics.write_text(json.dumps({**scores, **runs}))
        assert main([*flags, '--metrics', str(metrics)]) == 2
        assert words in capsys.readouterr().err
    used['sha256'] = 'of others'
    metrics.write_text(json.dumps({**scores, 'runs': {}}))
    assert main([*flags, '--metrics', str(metrics)]) == 2
    assert 'has scores of other weights' in capsys.readouterr().err


def test_evaluate_scores_what_predict_writes(tmp_path, weights, capsys, monkeypatch):
    """A data set labelled with the network's own masks is scored 1; a wrong one less."""
    images = tmp_path / 'set' / 'images'
    rng = np.random.default_rng(0)
    for name in ('a_1', 'b_1'):
        imwrite(images / f'{name}.png', rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    predicted = tmp_path / 'predicted'
    common = ['--route', 'day', *weights]
    assert main(['predict', str(images), '--out', str(predicted), *common]) == 0
    labels = (predicted / 'labels').rename(tmp_path / 'set' / 'labels')

    def scores(*flags: str, code: int = 0) -> dict[str, Any]:
        given = ['--dataset', f'folder:{tmp_path}/set', '--out', str(tmp_path), *common, *flags]
        assert main(['evaluate', *given]) == code
        return json.loads((tmp_path / 'metrics.json').read_text())['runs']['set']

    run = scores()
    assert run['all']['miou'] == 1 and run['mean_of_sources_miou9'] == 1
    assert set(run['by_source']) == {'a', 'b'} and run['routes'] == {'day': 2}
    label = str(labels / 'a_1.png')
    cv2.imwrite(label, (cv2.imread(label, -1) + 1) % 11)
    found = scores()['by_source']
    assert (found['a']['pixel_acc'], found['b']['pixel_acc']) == (0, 1)
    named = scores('--sources', 'b*=street', '*_1=yard')['by_source']
    assert named == {'street': found['b'], 'yard': found['a']}
    # without labels there is no table of dashes, and the last line is the report
    capsys.readouterr()
    bare = tmp_path / 'bare'
    assert main(['evaluate', str(images), '--out', str(bare), *common]) == 0
    summary, page = capsys.readouterr().out.splitlines()
    assert summary == 'images: 2 frames without labels; routes: day 2'
    assert page == str(bare / 'report.html')
    # whoever reads the table may have left
    (tmp_path / 'report.html').unlink()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'w') as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, 'stdout', pipe)
        scores(code=141)
    assert (tmp_path / 'report.html').exists()


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_scripts_of_bench_find_what_they_import(script):
    importlib.import_module(script.stem)


def test_a_tiny_run(tmp_path, monkeypatch, capsys):
    weights = weight_flags(tmp_path, 'day', 'night', 'translator', 'illumination')
    tiny = [
        Setup(backend='torch', size=(80, 46)),
        Setup(backend='torch', size=(80, 46), cameras=3),
        Setup(backend='torch', size=(64, 36), route='translate', draw=True),
        # there is no such GPU here: it is left out, and the rest is measured
        Setup(backend='tensorrt', size=(64, 36)),
    ]
    monkeypatch.setattr(machine, 'setups', lambda *_, **__: tiny)
    out = tmp_path / 'out'
    arguments = ['bench', '--out', str(out), '--short', '--backend', 'torch', *weights]
    assert main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {'bench.json', 'bench.md'}
    result = json.loads((out / 'bench.json').read_text())
    assert result['machine']['cores'] >= 1 and result['versions']['nightseg']
    one, three, drawn = result['pipelines']
    assert one['description']['backend'] == 'torch'
    assert [p['batch_ms']['count'] for p in (one, three, drawn)] == [5, 5, 5]
    assert [p['stages_ms']['network']['count'] for p in (one, three, drawn)] == [5, 15, 5]
    assert (drawn['route'], drawn['size'], drawn['draw']) == ('translate', [64, 36], True)
    for p in (one, three, drawn):
        assert 0 < p['batch_ms']['p50'] <= p['batch_ms']['p95'] <= p['batch_ms']['p99']
        assert p['hz'] == pytest.approx(1e3 * p['cameras'] / p['batch_ms']['p50'], abs=0.06)
    page = (out / 'bench.md').read_text()
    assert page in capsys.readouterr().out
    assert page.count('| torch |') == 3 and '| 80×46 | night | 3 | labels |' in page
