# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Flags of a verb, made by tyro from its frozen dataclass, whose docstrings are the help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import tyro

from nightseg_ros.config import ConfigError

if TYPE_CHECKING:
    from nightseg_ros.perception.pipeline import PipelineConfig

T = TypeVar('T')


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineOptions:
    """Flags of every verb that runs the pipeline; they are the node's parameters of that name."""

    route: Literal['auto', 'day', 'night', 'translate'] = 'auto'
    """'auto' follows the illumination; the others are always taken."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where the networks run."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino', 'openvino-bf16', 'tensorrt'] = (
        'auto'
    )
    """What runs the networks."""
    long_side: int = 0
    """Long side of the networks' input in pixels; 0: what the weights were trained at."""
    weights_day: str = 'day'
    """Weights of the route 'day': a file, or the name of a shipped one."""
    weights_night: str = 'night'
    """Weights of the route 'night'."""
    weights_translator: str = ''
    """Night-to-day generator of the route 'translate'."""
    weights_illumination: str = 'illumination'
    """Weights that tell day from night."""

    def pipeline_config(self) -> PipelineConfig:
        """Return the settings as the pipeline takes them."""
        from nightseg_ros.perception.pipeline import PipelineConfig, WeightsConfig

        weights = WeightsConfig(
            day=self.weights_day,
            night=self.weights_night,
            translator=self.weights_translator,
            illumination=self.weights_illumination,
        )
        try:
            return PipelineConfig(
                route=self.route,
                device=self.device,
                backend=self.backend,
                long_side=self.long_side,
                weights=weights,
            )
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from error


def parse(options: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Return the options of ``nightseg VERB``; wrong flags exit with 2 and a hint."""
    prog = f'nightseg {verb}'
    try:
        if default is None:
            return tyro.cli(options, prog=prog, args=list(arguments))
        return tyro.cli(options, prog=prog, args=list(arguments), default=default)
    except ConfigError:
        raise
    except ValueError as error:
        # the dataclasses check themselves with plain ValueErrors
        raise ConfigError(str(error)) from error
