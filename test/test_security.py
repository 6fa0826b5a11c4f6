# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Files from outside run no code, leave no folder, and claim no more than there is."""

import bz2
from pathlib import Path
import re
import tracemalloc

from bag_samples import frames_of, TOPIC, write_bag
import lz4.frame
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.storage import _zstd, MAX_BYTES, unpack, unpack_file
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.config import ConfigError, from_mapping, load_yaml, read_yaml
from nightseg_ros.data.source import open_source
from nightseg_ros.networks import build, build_from
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.weights import load_weights, save_weights, WeightsError, WeightsMetadata
import numpy as np
from packaging.requirements import Requirement
from packaging.version import Version
import pytest
import yaml

ROOT = Path(__file__).parent.parent
CODE = sorted((ROOT / 'nightseg_ros').rglob('*.py')) + sorted((ROOT / 'launch').glob('*.py'))
#: What runs code from data and is in none of ruff's rules S, which find eval, exec, shells, and
#: loads of pickles and of YAML.
UNSEEN = re.compile(
    r'^\s*(import|from) (pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b'
    r'|torch\.load\((?!.*weights_only=True)|allow_pickle|yaml\.(unsafe|full)_load|__import__\(',
    re.MULTILINE,
)


def test_no_module_runs_what_it_reads():
    lint = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    assert re.search(r'^select = .*"S"', lint, re.MULTILINE)
    loaders = set()
    for path in CODE:
        text = path.read_text(encoding='utf-8')
        assert not UNSEEN.search(text), path
        excused = re.findall(r'noqa: S(1(?!08)\d\d|3\d\d|6(?!08)\d\d)', text)
        assert not excused, path
        loaders |= set(re.findall(r"yaml\.\w*Loader|'\w*Loader'", text))
    assert loaders == {'yaml.SafeLoader', "'CSafeLoader'"}


@pytest.mark.parametrize(
    'text',
    [
        # libyaml's composer recurses in C: these ended the process with a segmentation fault
        '[' * 100_000, '{a: ' * 50_000, '- ' * 100_000, '? ' * 50_000,
        # PyYAML's constructors fail in ways of their own
        '2001-13-01', '!!timestamp x', '!!bool x', '!!int 0o', '9' * 5000, '!!binary x',
        '!!omap [1]', '!!python/object/apply:os.system [ls]', '%', 'a: \0',
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_hostile_yaml_is_an_error_of_one_kind(text):
    with pytest.raises(ValueError, match=r'.') as caught:
        load_yaml(text)
    assert len(str(caught.value)) < 1000


def laughs() -> bytes:
    """Return YAML that aliases make ten billion times as long."""
    lines = ['a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]']
    for level in range(1, 12):
        lines.append(f'a{level}: &a{level} [{", ".join([f"*a{level - 1}"] * 9)}]')
    return '\n'.join([*lines, 'long_side: *a11']).encode()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'\x80', 'is no YAML: .*decode byte 0x80'), (b'', 'must be a mapping .*, got None'),
        (b'- a\n', r"must be a mapping .*, got \['a'\]"), (b'a: [', 'is no YAML'),
        (b'a' * 2**21, 'is longer than 1048576 bytes'), (laughs(), 'alias'),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_file_that_is_no_mapping_names_itself(tmp_path, content, words):
    file = tmp_path / 'odd.yaml'
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf'odd\.yaml.*{words}'):
        read_yaml(file)


def test_a_wrong_value_of_any_length_makes_a_short_message():
    with pytest.raises(ConfigError, match=r"^'long_side' must be int.{,450}$"):
        from_mapping(PipelineConfig, {'long_side': ['x' * 10_000] * 1000})


def test_the_metadata_of_a_bag_leads_nowhere_else(tmp_path):
    secret = write_bag(tmp_path / 'elsewhere', 'mcap', range(2), name='secret')
    bag = write_bag(tmp_path, 'mcap', range(4)).parent
    content = yaml.safe_load((bag / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information']['relative_file_paths'] = [
        '../elsewhere/secret/secret.mcap', str(secret), '../../../../etc/passwd',
    ]  # fmt: skip
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(content))
    with BagReader(bag) as reader:
        frames = frames_of(reader, TOPIC)
    # the folder's own file is read; the other has two frames
    assert [type(frame) for frame in frames] == [Frame] * 4


def test_frames_of_topics_named_like_paths_stay_in_their_folder(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for topic in ('/../../etc/cam/image_raw', '/a/../../b/image_raw'):
            bag.write_frame(topic, Frame(image=np.zeros((4, 6, 3), np.uint8), stamp_ns=10**9))
    for topic in open_source(tmp_path / 'bag', every_camera=True).topics:
        [(stem, _)] = open_source(tmp_path / 'bag', topic)
        assert (tmp_path / 'out' / f'{stem}.png').resolve().parent == tmp_path / 'out'


@pytest.mark.parametrize(
    ('compression', 'compress'),
    [('zstd', _zstd.compress), ('lz4', lz4.frame.compress), ('bz2', bz2.compress)],
)
def test_a_chunk_that_unpacks_to_anything_is_refused(compression, compress):
    bomb = compress(bytes(2**26))
    assert len(bomb) < 2**19
    assert unpack(compress(bytes(1000)), compression, 1000) == bytes(1000)
    tracemalloc.start()
    with pytest.raises(ValueError, match='or more than 1000 bytes'):
        unpack(bomb, compression, 1000)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(ValueError, match='are the most'):
        unpack(bomb, compression, MAX_BYTES + 1)


def test_a_packed_bag_does_not_fill_the_disk(tmp_path, monkeypatch):
    source = tmp_path / 'bomb.mcap.zstd'
    source.write_bytes(_zstd.compress(bytes(2**24)))
    free = iter([2**31, 2**31, 2**31, 100])
    monkeypatch.setattr('shutil.disk_usage', lambda _: type('Usage', (), {'free': next(free)}))
    assert 'no room' in unpack_file(source, tmp_path / 'bomb.mcap')
    assert (tmp_path / 'bomb.mcap').stat().st_size < 2**20


@pytest.mark.parametrize(
    ('arch', 'words'),
    [
        ({'ngf': 4, 'blocks': 400}, 'parameters, they hold'), ({'ngf': 4000}, 'they hold'),
        ({'ngf': 10**9}, 'no network has 1000000000 of anything'),
        ({'blocks': 10**12}, 'no network has 1000000000000 of anything'),
        ({'ngf': -1}, 'negative dimension -1'), ({'ngf': [4]}, 'cannot be built from'),
        ({'nonsense': 1}, 'cannot be built from'),
    ],
)  # fmt: skip
def test_metadata_that_ask_for_a_giant_network_are_refused(tmp_path, arch, words):
    tensors = build('resnet_generator', ngf=4, blocks=1).state_dict()
    file = tmp_path / 'giant.safetensors'
    save_weights(file, tensors, WeightsMetadata(network='resnet_generator', arch=arch))
    with pytest.raises(WeightsError, match=words):
        build_from(load_weights(file))


def test_shipped_weights_pass_the_check_of_their_size():
    for name in ('day', 'night', 'translator', 'illumination'):
        assert build_from(load_weights(name)).training is False, name


def locked(name: str) -> dict[str, list[tuple[Version, str]]]:
    """Return the versions and the number of hashes by package of a lock file."""
    found: dict[str, list[tuple[Version, str]]] = {}
    text = (ROOT / 'requirements' / 'lock' / f'{name}.txt').read_text(encoding='utf-8')
    for block in re.split(r'\n(?=[A-Za-z])', text.partition('\n')[2]):
        head, *hashes = [line.strip(' \\') for line in block.strip().splitlines()]
        requirement = Requirement(head)
        [pin] = requirement.specifier
        assert pin.operator == '==' and hashes
        assert all(re.fullmatch(r'--hash=sha256:[0-9a-f]{64}', line) for line in hashes)
        key = requirement.name.lower().replace('_', '-').replace('.', '-')
        found.setdefault(key, []).append((Version(pin.version), str(requirement.marker or '')))
    return found


@pytest.mark.parametrize('distro', ['jazzy', 'kilted'])
def test_the_lock_holds_every_requirement(distro):
    whole = locked('base') | locked('cuda') | locked(f'ros-{distro}')
    for name in ('runtime', 'train', 'test', 'fleet', 'lint', f'ros-{distro}', 'constraints'):
        text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
        for line in filter(None, (line.partition('#')[0].strip() for line in text.splitlines())):
            wanted = Requirement(line)
            found = whole[wanted.name.lower().replace('_', '-').replace('.', '-')]
            assert all(version in wanted.specifier for version, _ in found), f'{line}: `make lock`'


def test_both_builds_of_torch_are_of_one_version_and_no_lock_file_names_a_place():
    [(cpu, _)], [(cuda, _)] = locked('cpu')['torch'], locked('cuda')['torch']
    assert cpu.local == 'cpu' and cpu.public == str(cuda)
    assert 'torch' not in locked('base')
    for file in (ROOT / 'requirements' / 'lock').iterdir():
        text = file.read_text(encoding='utf-8')
        assert '://' not in text and '--index' not in text and '--find-links' not in text
