# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Rigid transforms as float64 [4, 4] matrices, the tree that connects frames, and tracks of poses.

``target_from_source`` maps points of the frame ``source`` into the frame ``target``. Quaternions
are x, y, z, w, lengths metres, angles radians, as ROS has them (REP-103).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
import math
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar('T')
Matrix = npt.NDArray[np.float64]


class CloudError(ValueError):
    """A cloud, image, calibration, transform or pose that cannot be used, and why."""


#: (target, source, stamp in ns) → target_from_source; ``CloudError`` where nobody knows it.
Lookup = Callable[[str, str, int], Matrix]

#: REP-103: an optical frame looks along z, x right and y down; a body along x, y left and z up.
BODY_FROM_OPTICAL: Matrix = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def from_pose(translation: Sequence[float], quaternion: Sequence[float]) -> Matrix:
    """Return the matrix of a ROS pose or transform; ``CloudError`` where it is none."""
    numbers = np.array([*translation, *quaternion], np.float64)
    norm = float(np.linalg.norm(numbers[3:]))
    if len(numbers) != 7 or not np.isfinite(numbers).all() or not 0.9 < norm < 1.1:
        raise CloudError(
            f'a transform needs x y z and a quaternion x y z w of length 1; got {numbers.tolist()}'
        )
    x, y, z, w = numbers[3:] / norm
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = numbers[:3]
    return matrix


def quaternion(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return x, y, z, w of a matrix's rotation, w not negative."""
    m = matrix[:3, :3]
    # the eigenvector of the largest eigenvalue (Bar-Itzhack 2000); no case is ill-conditioned
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
    ])  # fmt: skip
    found = np.linalg.eigh(k)[1][:, -1]
    return np.asarray(-found if found[3] < 0 else found)


def from_angles(translation: Sequence[float], angles: Sequence[float]) -> Matrix:
    """Return the matrix of x, y, z and roll, pitch, yaw about fixed axes."""
    half = [angle / 2 for angle in angles]
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a), math.cos(a)) for a in half)
    return from_pose(translation, (
        sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy, cr * cp * cy + sr * sp * sy,
    ))  # fmt: skip


def inverse(matrix: Matrix) -> Matrix:
    """Return the inverse of a rigid transform."""
    result = np.eye(4)
    result[:3, :3] = matrix[:3, :3].T
    result[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return result


def interpolated(first: Matrix, second: Matrix, share: float) -> Matrix:
    """Return the pose ``share`` (0–1) of the way: translation linear, rotation spherical."""
    a, b = quaternion(first), quaternion(second)
    b = -b if a @ b < 0 else b
    angle = float(np.arccos(np.clip(a @ b, -1, 1)))
    if angle > 1e-6:
        turned = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    else:
        turned = (1 - share) * a + share * b
    place = (1 - share) * first[:3, 3] + share * second[:3, 3]
    return from_pose(place.tolist(), (turned / np.linalg.norm(turned)).tolist())


def as_text(parent: str, child: str, parent_from_child: Matrix) -> str:
    """Return what ``FrameTree.add_text`` reads."""
    numbers = [*parent_from_child[:3, 3], *quaternion(parent_from_child)]
    return ' '.join([parent, child, *(f'{number:.9g}' for number in numbers)])


class FrameTree:
    """Static transforms between named frames."""

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, Matrix]] = {}

    def add(self, parent: str, child: str, parent_from_child: Matrix) -> None:
        """Connect two frames; a later transform of the same two replaces the earlier one."""
        parent, child = parent.strip('/'), child.strip('/')
        self._edges.setdefault(parent, {})[child] = parent_from_child
        self._edges.setdefault(child, {})[parent] = inverse(parent_from_child)

    def add_text(self, text: str) -> str:
        """
        Connect two frames as a person writes it: PARENT CHILD X Y Z and QX QY QZ QW or R P Y.

        Return the child. ``CloudError`` quotes a text that says something else.
        """
        words = text.replace(',', ' ').split()
        try:
            numbers = [float(word) for word in words[2:]]
            if len(numbers) not in (6, 7):
                raise ValueError(f'{len(numbers)} numbers')
            build = from_pose if len(numbers) == 7 else from_angles
            self.add(words[0], words[1], build(numbers[:3], numbers[3:]))
        except ValueError as error:
            raise CloudError(
                f"transform '{text}' must be PARENT CHILD X Y Z QX QY QZ QW or PARENT CHILD X Y Z "
                f'ROLL PITCH YAW, in metres and radians: {error}'
            ) from error
        return words[1].strip('/')

    def lookup(self, target: str, source: str, stamp_ns: int = 0) -> Matrix:
        """Return target_from_source; ``CloudError`` lists the frames where nothing connects."""
        target, source = target.strip('/'), source.strip('/')
        reached = {target: np.eye(4)}
        waiting = [target]
        for frame in waiting:
            if frame == source:
                return reached[frame]
            for near, frame_from_near in self._edges.get(frame, {}).items():
                if near not in reached:
                    reached[near] = reached[frame] @ frame_from_near
                    waiting.append(near)
        known = ', '.join(sorted(self._edges)) or 'none'
        raise CloudError(
            f"no transform from '{source}' to '{target}' is known; known frames: {known}"
        )


#: A stamp that goes back by more than this is a jump (a bag that loops), not a late message.
JUMP_NS = 1_000_000_000
#: As many entries a second a track keeps at most, whatever their stamps say.
MOST_A_SECOND = 200
#: A pose is no witness of what was longer ago, or will be, than this.
GAP_NS = 500_000_000


class Track(Generic[T]):
    """What came lately, by its stamp."""

    def __init__(self, keep_s: float) -> None:
        """Keep what is at most ``keep_s`` older than the newest."""
        self._keep_ns, self._most = round(keep_s * 1e9), round(keep_s * MOST_A_SECOND) + 1
        self.stamps: list[int] = []
        """In ns, ascending."""
        self.entries: dict[int, T] = {}
        """By stamp, in the order in which these came first."""

    def add(self, stamp_ns: int, entry: T) -> None:
        """Add an entry, or replace that of its stamp; a jump back starts the track anew."""
        # also where the stamp that came before was one from the future
        if self.stamps and stamp_ns < self.stamps[-1] - min(self._keep_ns, JUMP_NS):
            self.stamps, self.entries = [], {}
        if stamp_ns not in self.entries:
            insort(self.stamps, stamp_ns)
        self.entries[stamp_ns] = entry
        while self.stamps[0] < self.stamps[-1] - self._keep_ns or len(self.stamps) > self._most:
            del self.entries[self.stamps.pop(0)]


class PoseTrack(Track[Matrix]):
    """The latest poses of a moving base in a fixed frame, fixed_from_base."""

    def at(self, stamp_ns: int) -> Matrix:
        """
        Return the pose at a stamp, interpolated between two.

        ``CloudError`` before the first and after the last pose, and in a gap of ``GAP_NS``.
        """
        if stamp_ns in self.entries:
            return self.entries[stamp_ns]
        right = bisect_left(self.stamps, stamp_ns)
        if not 0 < right < len(self.stamps):
            span = f'{self.stamps[0]} to {self.stamps[-1]}' if self.stamps else 'none'
            raise CloudError(f'no pose for the stamp {stamp_ns} ns; poses known: {span}')
        before, after = self.stamps[right - 1], self.stamps[right]
        if after - before > GAP_NS:
            raise CloudError(f'no pose for {(after - before) / 1e9:.1f} s around {stamp_ns} ns')
        share = (stamp_ns - before) / (after - before)
        return interpolated(self.entries[before], self.entries[after], share)

    def moved(self, from_ns: int, to_ns: int) -> Matrix:
        """Return base_at_to_from_base_at_from: where a point that stands still has gone."""
        return np.asarray(np.linalg.inv(self.at(to_ns)) @ self.at(from_ns))
