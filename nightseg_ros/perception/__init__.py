# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Camera frame → illumination → route → network → mask."""
