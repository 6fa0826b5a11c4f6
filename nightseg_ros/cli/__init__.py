# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The command line: the table of verbs in ``main``, and a file for each kind of job."""
