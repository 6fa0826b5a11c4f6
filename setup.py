# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The package as colcon (ament_python) and pip build it."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
NAME = 'nightseg'


def requirements(*names: str) -> list[str]:
    """Return the lines of ``requirements/<name>.txt`` without comments."""
    texts = [(HERE / 'requirements' / f'{name}.txt').read_text() for name in names]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(('#', '-'))]


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """Return the files of a folder as they are installed beside the code, folder by folder."""
    found: dict[str, list[str]] = {}
    for path in sorted((HERE / folder).rglob('*')):
        relative = path.relative_to(HERE)
        # the paper's network is in the repository, to compare with; nobody drives with it
        shipped = '__pycache__' not in relative.parts and not path.name.startswith('erf_pspnet')
        if path.is_file() and shipped:
            found.setdefault(f'share/{NAME}/{relative.parent}', []).append(str(relative))
    return list(found.items())


setup(
    name=NAME,
    version='1.0.0',
    description='Night-robust semantic segmentation of vehicle cameras, for ROS 2',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords='ros2 semantic-segmentation night perception onnx openvino',
    project_urls={'Paper': 'https://arxiv.org/abs/1908.05868'},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 15)),
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    author='The nightseg developers',
    maintainer='The nightseg developers',
    maintainer_email='maintainers@nightseg.dev',
    # the second one is that of most weights: models/README.md
    license='Apache-2.0 AND CC-BY-NC-4.0',
    license_files=['LICENSE', 'models/README.md'],
    python_requires='>=3.10',
    packages=find_packages(include=['nightseg_ros', 'nightseg_ros.*']),
    package_data={
        'nightseg_ros': ['py.typed'],
        'nightseg_ros.node': ['view.html'],
        'nightseg_ros.evaluation': [
            'report.jinja',
            'report.css',
        ],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared('config'),
        *shared('launch'),
        *shared('models'),
    ],
    install_requires=requirements('runtime'),
    extras_require={
        'onnx': requirements('onnx'),
        'torch': requirements('torch', 'onnx'),
        'train': requirements('torch', 'onnx', 'train'),
        'fleet': requirements('fleet'),
        'view': ['rerun-sdk>=0.24'],
        # without an extra of this name that has pytest in it, colcon runs no test
        'test': requirements('torch', 'onnx', 'train', 'fleet', 'test'),
        'dev': requirements('torch', 'onnx', 'train', 'fleet', 'test', 'lint'),
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'nightseg = nightseg_ros.cli.main:main',
            'night_perception = nightseg_ros.node.main:main',
            'semantic_cloud = nightseg_ros.node.semantic_cloud:main',
            'bag_player = nightseg_ros.node.replay:main',
        ],
    },
)
