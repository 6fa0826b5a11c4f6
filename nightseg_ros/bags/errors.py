# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a bag."""


class BagError(ValueError):
    """A bag that cannot be read or written; the message names the file, the topic and the fix."""
