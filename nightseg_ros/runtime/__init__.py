# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The machines that run a network: one small interface, one file a backend."""
