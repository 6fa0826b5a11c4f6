# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Nodes as others write them, built from public libraries, for `nightseg bench` to compare with.

Each is a process: ``PYTHONPATH=bench python -m peers.NAME CAMERA`` serves ``CAMERA/image_raw``.
"""
