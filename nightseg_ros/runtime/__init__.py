# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What runs a network: one small interface, and its backends."""
