# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Where the vehicle was at a stamp, between two poses."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.transform import Matrix, from_pose, quaternion

#: Poses that are kept: four seconds at 200 Hz.
MOST = 800
#: A pose is no witness of what was longer ago, or will be, than this.
GAP_NS = 500_000_000


class PoseTrack:
    """The latest poses of a moving base in a fixed frame, by their stamps."""

    def __init__(self) -> None:
        """Know nothing."""
        self._stamps: list[int] = []
        self._poses: list[Matrix] = []

    def add(self, stamp_ns: int, fixed_from_base: Matrix) -> None:
        """Append a pose; one that is not later than the last starts the track anew."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            self._stamps, self._poses = [], []
        self._stamps.append(stamp_ns)
        self._poses.append(fixed_from_base)
        if len(self._stamps) > 2 * MOST:
            self._stamps, self._poses = self._stamps[-MOST:], self._poses[-MOST:]

    def at(self, stamp_ns: int) -> Matrix:
        """
        Return the pose at a stamp: translation linear, rotation spherical between two poses.

        ``CloudError`` before the first and after the last pose, and in a gap of ``GAP_NS``.
        """
        right = bisect_left(self._stamps, stamp_ns)
        if right < len(self._stamps) and self._stamps[right] == stamp_ns:
            return self._poses[right]
        if not 0 < right < len(self._stamps):
            span = f'{self._stamps[0]} to {self._stamps[-1]}' if self._stamps else 'none'
            raise CloudError(f'no pose for the stamp {stamp_ns} ns; poses known: {span}')
        before, after = self._stamps[right - 1], self._stamps[right]
        if after - before > GAP_NS:
            raise CloudError(f'no pose for {(after - before) / 1e9:.1f} s around {stamp_ns} ns')
        share = (stamp_ns - before) / (after - before)
        return interpolated(self._poses[right - 1], self._poses[right], share)

    def moved(self, from_ns: int, to_ns: int) -> Matrix:
        """Return base_at_to_from_base_at_from: where a point that stands still has gone."""
        if from_ns == to_ns:
            return np.eye(4)
        return np.asarray(np.linalg.inv(self.at(to_ns)) @ self.at(from_ns))


def interpolated(first: Matrix, second: Matrix, share: float) -> Matrix:
    """Return the pose ``share`` (0–1) of the way between two."""
    a, b = quaternion(first), quaternion(second)
    b = -b if a @ b < 0 else b
    angle = float(np.arccos(np.clip(a @ b, -1, 1)))
    if angle > 1e-6:
        turned = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    else:
        turned = (1 - share) * a + share * b
    place = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return from_pose(place.tolist(), (turned / np.linalg.norm(turned)).tolist())
