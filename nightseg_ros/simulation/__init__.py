# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A small renderer of street drives with exact CamVid-11 labels, depth and time of day.

Everything in its pictures is drawn by this code from seeds, so they carry no licence but the
package's own. They feed the demo, the tests, the tutorial and the from-scratch weights
``models/rendered_*``, and nothing else: no rendered frame trains, selects or scores the weights
for real cameras, and a score on rendered frames is never a night accuracy.
"""
