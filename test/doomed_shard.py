# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A shard whose process is killed in the middle of it, the first time."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
import os
from pathlib import Path
import signal
from typing import Any

from nightseg_ros.evaluation.sources import LabelledFrame, Shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Doomed(Shard):
    """Kills the process that reads it after ``after`` frames, unless ``mark`` exists."""

    mark: Path
    after: int

    def read(self, note: dict[str, Any]) -> Generator[LabelledFrame, None, None]:
        for index, frame in enumerate(Shard.read(self, note)):
            if index == self.after and not self.mark.exists():
                self.mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            yield frame
