# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bench``: what is measured, and what the figures say."""
