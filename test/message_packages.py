# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Real messages of packages that no wheel holds, built with the generators of the rosidl wheels.

The definitions are those that Nav2's layer reads, and those of the two kinds of video topics.
"""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys
import sysconfig
from unittest import mock

import numpy as np

PACKAGES = {
    'vision_msgs': {
        'VisionClass': 'struct VisionClass { uint16 class_id; string class_name; };',
        'LabelInfo': """struct LabelInfo {
            std_msgs::msg::Header header; sequence<vision_msgs::msg::VisionClass> class_map;
            float threshold;
        };""",
    },
    'ffmpeg_image_transport_msgs': {
        'FFMPEGPacket': """struct FFMPEGPacket {
            std_msgs::msg::Header header; int32 width; int32 height; string encoding; uint64 pts;
            uint8 flags; boolean is_bigendian; sequence<uint8> data;
        };""",
    },
    'foxglove_msgs': {
        'CompressedVideo': """struct CompressedVideo {
            builtin_interfaces::msg::Time timestamp; string frame_id; sequence<uint8> data;
            string format;
        };""",
    },
}
#: Of each library: where its sources are, the end of its name, sources, compiler, what it needs of
#: this package, of those whose messages are in it, and of the system. The last is the Python
#: module.
STEPS = (
    ('c', 'rosidl_generator_c', 'msg/detail/*.c', 'cc', (), 'rosidl_generator_c',
     ('rosidl_runtime_c', 'rcutils')),
    ('fastrtps_c', 'rosidl_typesupport_fastrtps_c', 'msg/detail/*.cpp', 'c++',
     ('rosidl_generator_c',), 'rosidl_typesupport_fastrtps_c',
     ('rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_fastrtps_cpp', 'fastcdr')),
    ('introspection_c', 'rosidl_typesupport_introspection_c', 'msg/detail/*.c', 'cc',
     ('rosidl_generator_c',), 'rosidl_typesupport_introspection_c',
     ('rosidl_typesupport_introspection_c',)),
    ('c', 'rosidl_typesupport_c', 'msg/*.cpp', 'c++', ('rosidl_generator_c',), '',
     ('rosidl_typesupport_c',)),
    ('py', '', '_*.rosidl_typesupport_c.c msg/*_s.c', 'cc',
     ('rosidl_typesupport_c', 'rosidl_generator_c'), 'rosidl_generator_py', ()),
)  # fmt: skip
#: Packages of the messages in ours.
NEEDED = ('std_msgs', 'builtin_interfaces')
KINDS = ('c', 'fastrtps_c', 'introspection_c', 'py')


def build(folder: Path, *packages: str) -> dict[str, str]:
    """Build packages in a folder; return the environment in which they can be imported."""
    for package in packages:
        _build(folder, package)
    paths = {'PYTHONPATH': folder / 'py', 'LD_LIBRARY_PATH': folder}
    return {name: f'{path}:{os.environ.get(name, "")}'.rstrip(':') for name, path in paths.items()}


def _build(folder: Path, package: str) -> None:
    from rosidl_cli import entry_points
    from rosidl_cli.command.generate.api import generate

    prefix, source = Path(sys.prefix), folder / 'idl' / package
    (source / 'msg').mkdir(parents=True)
    for name, text in PACKAGES[package].items():
        used = re.findall(r'(\w+)::msg::(\w+)', text)
        includes = ''.join(f'#include "{other}/msg/{kind}.idl"\n' for other, kind in used)
        module = f'{includes}module {package} {{ module msg {{ {text} }}; }};\n'
        (source / f'msg/{name}.idl').write_text(module)

    def lenient(group: str, *, specs: object = None, strict: bool = False) -> object:
        # the wheels register some generators twice
        return registered(group, specs=specs)

    registered = entry_points.get_entry_points
    with (
        mock.patch.dict(os.environ, {'AMENT_PREFIX_PATH': str(prefix)}),
        mock.patch.object(entry_points, 'get_entry_points', lenient),
    ):
        generate(
            package_name=package, output_path=folder / 'made', types=['c', 'py'],
            interface_files=[f'{source}:msg/{name}.idl' for name in PACKAGES[package]],
            include_paths=[str(prefix / 'share')],
            typesupports=[kind for kind in KINDS if kind != 'py'],
        )  # fmt: skip
    for kind in KINDS:
        (folder / kind).mkdir(exist_ok=True)
        (folder / 'made' / kind).rename(folder / kind / package)
    (folder / 'py' / package / '__init__.py').touch()
    includes = [*(folder / kind for kind in KINDS), prefix / 'include']
    includes += [*(prefix / 'include').iterdir(), sysconfig.get_paths()['include']]
    includes += [np.get_include()]
    for kind, library, sources, compiler, own, needed, links in STEPS:
        code = folder / kind / package
        out = folder / f'lib{package}__{library}.so'
        if not library:
            out = code / f'{package}_s__rosidl_typesupport_c.so'
        command = [compiler, '-w', '-fPIC', '-shared', '-o', out]
        command += [path for pattern in sources.split() for path in code.glob(pattern)]
        command += [f'-I{path}' for path in includes]
        command += [f'-L{prefix / "lib"}', f'-L{folder}', f'-Wl,-rpath,{prefix / "lib"}:{folder}']
        names = [f'{package}__{name}' for name in own]
        names += [f'{other}__{needed}' for other in NEEDED if needed]
        subprocess.run([*command, *(f'-l{name}' for name in (*names, *links))], check=True)
