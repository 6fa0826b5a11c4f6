# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Settings of a calibration, without what it needs to run."""

from __future__ import annotations

from dataclasses import dataclass

from nightseg_ros.config import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationConfig:
    """
    Fit temperature and reliability and write them into weights; see docs/results.md.

    Errors that are printed are out of fold: each place's is that of the temperature which was
    fitted on the others.
    """

    weights: str
    """Weights of a segmenter: a file, or the name of a shipped one."""
    data: tuple[str, ...] = ()
    """Labelled frames for the temperature, of two places or more that were not trained on:
    ADAPTER:ROOT[:SPLIT]. A place is a drive or camera, as the data set names its sources."""
    faults_on: tuple[str, ...] = ()
    """Labelled day frames for the reliability; some are shown as they are, some as synthetic
    night, some through a faulty camera."""
    good: tuple[str, ...] = ()
    """More frames that show what a camera should give; their labels are not read."""
    out: str = ''
    """File to write; '' replaces the weights and renews SHA256SUMS beside them."""
    half: bool = True
    """Store float16, as `nightseg publish` does."""
    frames: int = 40
    """Frames of each data set at most, spread over it; of the good ones twice as many."""
    faults: int = 3
    """Faults shown on each labelled day frame."""
    cameras: int = 2
    """Further looks at each good frame, in other light and through other cameras, by the
    photometric augmentation of training: a camera of another tone is not a blind one."""
    pixels: int = 2000
    """Pixels drawn of each frame for the temperature."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming it."""
        if not self.data and not self.faults_on:
            raise ConfigError('name labelled frames: --data (temperature) or --faults-on')
        for name in ('frames', 'faults', 'pixels'):
            if getattr(self, name) < 1:
                raise ConfigError(f"'{name}' must be at least 1, got {getattr(self, name)}")
        if self.cameras < 0:
            raise ConfigError(f"'cameras' must not be negative, got {self.cameras}")
