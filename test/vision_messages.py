# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``vision_msgs/LabelInfo`` as a real message, built with the generators of the rosidl wheels.

No wheel holds vision_msgs. The two definitions are those that Nav2's layer reads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
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
#: Of each library: end of its name, sources, compiler, libraries. The last is the Python module.
STEPS = (
    ('rosidl_generator_c', 'msg/detail/*.c', 'cc',
     ('std_msgs__rosidl_generator_c', 'rosidl_runtime_c', 'rcutils')),
    ('rosidl_typesupport_fastrtps_c', 'msg/detail/*__type_support_c.cpp', 'c++',
     ('vision_msgs__rosidl_generator_c', 'std_msgs__rosidl_typesupport_fastrtps_c',
      'rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_fastrtps_cpp', 'fastcdr')),
    ('rosidl_typesupport_c', 'msg/*__type_support.cpp', 'c++',
     ('vision_msgs__rosidl_generator_c', 'rosidl_typesupport_c')),
    ('', '_*.rosidl_typesupport_c.c msg/*_s.c', 'cc',
     ('vision_msgs__rosidl_typesupport_c', 'vision_msgs__rosidl_generator_c',
      'std_msgs__rosidl_generator_py')),
)  # fmt: skip


def build(folder: Path) -> dict[str, str]:
    """Build the package in a folder; return the environment in which it can be imported."""
    from rosidl_cli import entry_points
    from rosidl_cli.command.generate.api import generate

    package, prefix = folder / 'vision_msgs', Path(sys.prefix)
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
            include_paths=[str(prefix / 'share')], typesupports=['c', 'fastrtps_c'],
        )  # fmt: skip
    for path in (folder / 'made').glob('*/**/*.*'):
        if path.is_file():
            target = package / Path(*path.relative_to(folder / 'made').parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    (package / '__init__.py').touch()
    includes = [folder, prefix / 'include', *(prefix / 'include').iterdir()]
    includes += [sysconfig.get_paths()['include'], np.get_include()]
    for library, sources, compiler, links in STEPS:
        out = folder / f'libvision_msgs__{library}.so'
        if not library:
            out = package / 'vision_msgs_s__rosidl_typesupport_c.so'
        command = [compiler, '-w', '-fPIC', '-shared', '-o', out]
        command += [path for pattern in sources.split() for path in package.glob(pattern)]
        command += [f'-I{path}' for path in includes]
        command += [f'-L{prefix / "lib"}', f'-L{folder}', f'-Wl,-rpath,{prefix / "lib"}:{folder}']
        subprocess.run([*command, *(f'-l{name}' for name in links)], check=True)
    before = {name: os.environ.get(name, '') for name in ('PYTHONPATH', 'LD_LIBRARY_PATH')}
    return {name: f'{folder}:{value}'.rstrip(':') for name, value in before.items()}
