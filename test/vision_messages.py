# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``vision_msgs/LabelInfo`` as a real message, built with the generators of the rosidl wheels.

No wheel holds vision_msgs. The two definitions are those that Nav2's layer reads.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import sysconfig
from unittest import mock

import numpy as np

DEFINITIONS = {
    'VisionClass': 'struct VisionClass { uint16 class_id; string class_name; };',
    'LabelInfo': """struct LabelInfo {
        std_msgs::msg::Header header; sequence<vision_msgs::msg::VisionClass> class_map;
        float threshold;
    };""",
}
INCLUDES = '#include "std_msgs/msg/Header.idl"\n#include "vision_msgs/msg/VisionClass.idl"\n'
#: Of each library: what generates it, end of its name, sources, compiler, libraries. The last is
#: the Python module.
STEPS = (
    ('c', 'rosidl_generator_c', 'msg/detail/*.c', 'cc',
     ('std_msgs__rosidl_generator_c', 'rosidl_runtime_c', 'rcutils')),
    ('fastrtps_c', 'rosidl_typesupport_fastrtps_c', 'msg/detail/*.cpp', 'c++',
     ('vision_msgs__rosidl_generator_c', 'std_msgs__rosidl_typesupport_fastrtps_c',
      'rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_fastrtps_cpp', 'fastcdr')),
    ('introspection_c', 'rosidl_typesupport_introspection_c', 'msg/detail/*.c', 'cc',
     ('vision_msgs__rosidl_generator_c', 'std_msgs__rosidl_typesupport_introspection_c',
      'rosidl_typesupport_introspection_c')),
    ('c', 'rosidl_typesupport_c', 'msg/*.cpp', 'c++',
     ('vision_msgs__rosidl_generator_c', 'rosidl_typesupport_c')),
    ('py', '', '_*.rosidl_typesupport_c.c msg/*_s.c', 'cc',
     ('vision_msgs__rosidl_typesupport_c', 'vision_msgs__rosidl_generator_c',
      'std_msgs__rosidl_generator_py')),
)  # fmt: skip
KINDS = ('c', 'fastrtps_c', 'introspection_c', 'py')


def build(folder: Path) -> dict[str, str]:
    """Build the package in a folder; return the environment in which it can be imported."""
    from rosidl_cli import entry_points
    from rosidl_cli.command.generate.api import generate

    prefix = Path(sys.prefix)
    (folder / 'idl/msg').mkdir(parents=True)
    for name, text in DEFINITIONS.items():
        includes = INCLUDES if name == 'LabelInfo' else ''
        module = f'{includes}module vision_msgs {{ module msg {{ {text} }}; }};\n'
        (folder / f'idl/msg/{name}.idl').write_text(module)

    def lenient(group: str, *, specs: object = None, strict: bool = False) -> object:
        # the wheels register some generators twice
        return registered(group, specs=specs)

    registered = entry_points.get_entry_points
    with (
        mock.patch.dict(os.environ, {'AMENT_PREFIX_PATH': str(prefix)}),
        mock.patch.object(entry_points, 'get_entry_points', lenient),
    ):
        generate(
            package_name='vision_msgs', output_path=folder / 'made', types=['c', 'py'],
            interface_files=[f'{folder / "idl"}:msg/{name}.idl' for name in DEFINITIONS],
            include_paths=[str(prefix / 'share')],
            typesupports=[kind for kind in KINDS if kind != 'py'],
        )  # fmt: skip
    for kind in KINDS:
        (folder / kind).mkdir()
        (folder / 'made' / kind).rename(folder / kind / 'vision_msgs')
    (folder / 'py/vision_msgs/__init__.py').touch()
    includes = [*(folder / kind for kind in KINDS), prefix / 'include']
    includes += [*(prefix / 'include').iterdir(), sysconfig.get_paths()['include']]
    includes += [np.get_include()]
    for kind, library, sources, compiler, links in STEPS:
        package = folder / kind / 'vision_msgs'
        out = folder / f'libvision_msgs__{library}.so'
        if not library:
            out = package / 'vision_msgs_s__rosidl_typesupport_c.so'
        command = [compiler, '-w', '-fPIC', '-shared', '-o', out]
        command += [path for pattern in sources.split() for path in package.glob(pattern)]
        command += [f'-I{path}' for path in includes]
        command += [f'-L{prefix / "lib"}', f'-L{folder}', f'-Wl,-rpath,{prefix / "lib"}:{folder}']
        subprocess.run([*command, *(f'-l{name}' for name in links)], check=True)
    paths = {'PYTHONPATH': folder / 'py', 'LD_LIBRARY_PATH': folder}
    return {name: f'{path}:{os.environ.get(name, "")}'.rstrip(':') for name, path in paths.items()}
