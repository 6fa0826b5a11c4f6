# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Builds message packages that are not installed: one shared object each, of the rosidl wheels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from nightseg_ros.bags.storage import VIDEO_TYPES

ROOT = Path(sys.prefix)
#: Messages by package and name; one that holds another of its package comes after it.
PACKAGES: dict[str, dict[str, str]] = {
    **{kind.split('/')[0]: {kind.split('/')[2]: text} for kind, text in VIDEO_TYPES.items()},
    'vision_msgs': {
        'VisionClass': """
            uint16 class_id
            string class_name""",
        'LabelInfo': """
            std_msgs/Header header
            vision_msgs/VisionClass[] class_map
            float32 threshold""",
    },
}


def build(folder: Path, package: str) -> str:
    """
    Build the Python package into ``folder``; return the PYTHONPATH that holds it.

    The test is skipped where rosidl or the compiler is missing.
    """
    if shutil.which('gcc') is None:
        pytest.skip('there is no compiler')
    adapter = pytest.importorskip('rosidl_adapter.msg')
    base, names = folder / package, list(PACKAGES[package])
    (base / 'msg').mkdir(parents=True)
    for name, fields in PACKAGES[package].items():
        (base / 'msg' / f'{name}.msg').write_text(textwrap.dedent(fields) + '\n')
        adapter.convert_msg_to_idl(base, package, Path('msg') / f'{name}.msg', base / 'msg')

    def arguments(generator: str) -> str:
        values = {
            'package_name': package, 'output_dir': str(base), 'target_dependencies': [],
            'template_dir': str(ROOT / 'share' / generator / 'resource'),
            'idl_tuples': [f'{base}:msg/{name}.idl' for name in names],
            'type_description_tuples': [f'msg/{n}.idl:{base}/msg/{n}.json' for n in names],
            'include_paths': [f'{p}:{ROOT / "share" / p}'
                              for p in ('builtin_interfaces', 'std_msgs')],
        }  # fmt: skip
        file = base / f'{generator}.json'
        file.write_text(json.dumps(values))
        return str(file)

    support = 'rosidl_typesupport_fastrtps_c'
    for generator, function, given in (
        ('rosidl_generator_type_description', 'generate_type_hash', ()),
        ('rosidl_generator_c', 'generate_c', ()),
        (support, f'generate_{support[7:]}', ()),
        ('rosidl_typesupport_c', 'generate_c', ([support],)),
        ('rosidl_generator_py', 'generate_py', (['rosidl_typesupport_c'],)),
    ):
        getattr(import_module(generator), function)(arguments(generator), *given)

    # what CMake would write: all of it is one shared object, so that nothing has to be exported
    parts = ('rosidl_generator_c', 'rosidl_typesupport_c', support)
    for part in parts:
        (base / 'msg' / f'{part}__visibility_control.h').touch()
    needed = ('builtin_interfaces', 'std_msgs')
    links = [f'{p}__{part}' for p in needed for part in (*parts, 'rosidl_generator_py')]
    links += ['rosidl_runtime_c', 'rosidl_typesupport_c', support, 'rcutils', 'fastcdr']
    links.append('rosidl_typesupport_fastrtps_cpp')
    headers = [ROOT / 'include', *(ROOT / 'include').iterdir()]
    sources = [str(path) for path in base.rglob('*') if path.suffix in ('.c', '.cpp')]
    target = base / f'{package}_s__rosidl_typesupport_c{sysconfig.get_config_var("EXT_SUFFIX")}'
    subprocess.run(
        [
            'gcc', '-shared', '-fPIC', '-w', '-o', target,
            *(f'-D{part.upper()}_{what}_{package}='
              for part in parts for what in ('PUBLIC', 'IMPORT')),
            *(f'-I{path}' for path in (folder, sysconfig.get_paths()['include'],
                                       import_module('numpy').get_include(), *headers)),
            *sources, f'-L{ROOT / "lib"}', *(f'-l{name}' for name in links), '-lstdc++',
        ],
        check=True,
    )  # fmt: skip
    (base / '__init__.py').touch()
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get('PYTHONPATH')])])
