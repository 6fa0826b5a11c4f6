# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The whole run, with every process that it starts, lives in a ROS domain of its own."""

import os
from collections.abc import Iterator

import pytest

from nightseg_ros.dds import private_domain


@pytest.fixture(scope='session', autouse=True)
def _private_ros_domain() -> Iterator[None]:
    with private_domain() as variables:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        yield
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
