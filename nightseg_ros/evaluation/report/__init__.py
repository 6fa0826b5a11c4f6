# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Reports that people look at, made of what an evaluation left in its folder."""

from nightseg_ros.evaluation.report.data import ReportError
from nightseg_ros.evaluation.report.write import write_report

__all__ = ['ReportError', 'write_report']
