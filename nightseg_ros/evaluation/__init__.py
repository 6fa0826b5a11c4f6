# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Scores: one confusion matrix, and what is computed from it."""
