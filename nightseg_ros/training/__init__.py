# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Recipes that make the weights, one a file."""
