# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A generator for several cameras, set to one of them."""

from __future__ import annotations

import dataclasses
import hashlib

from nightseg_ros.weights import Weights, WeightsError


def with_style(weights: Weights, style: str) -> Weights:
    """
    Return the weights such that every way to run them draws the night of camera ``style``.

    '' is any camera. ``WeightsError`` lists the cameras that the generator was trained on. The
    hash becomes another one, since it names the exported graph.
    """
    known = weights.metadata.arch.get('styles', ())
    if style and style not in known:
        raise WeightsError(
            f"weights '{weights.path}' know no camera '{style}'; "
            f'they know: {", ".join(known) or "none"}'
        )
    if not known:
        return weights
    arch = {**weights.metadata.arch, 'style': style}
    metadata = dataclasses.replace(weights.metadata, arch=arch)
    sha256 = hashlib.sha256(f'{weights.sha256} {style}'.encode()).hexdigest()
    return dataclasses.replace(weights, metadata=metadata, sha256=sha256)
