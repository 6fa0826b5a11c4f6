#!/bin/bash
# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
#
# Run a command in the workspace's environment.
set -e
# shellcheck source=/dev/null
source /opt/ros/jazzy/setup.bash --
# shellcheck source=/dev/null
source /ws/install/setup.bash --
exec "$@"
