# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Night-robust semantic segmentation for vehicles: a ROS 2 node and its offline tools.

Importing the package sets what libraries read when they are imported themselves: none of them
reports home, OpenBLAS and OpenCV have one thread (``runtime.backends.limit_threads`` says why),
and OpenCV unpacks no picture that claims gigabytes of pixels.
"""

import os
import sys

__version__ = '1.0.0'

# Importing OpenVINO would post to an analytics server. Without this module OpenVINO takes its own
# stub; its consent file would have to be written into the user's home.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
for _name, _value in {
    # onnxruntime 1.29 and later, Linux builds
    'ORT_DISABLE_TELEMETRY': '1',
    'RAY_USAGE_STATS_ENABLED': '0',
    'HF_HUB_DISABLE_TELEMETRY': '1',
    'DISABLE_TELEMETRY': '1',
    'DO_NOT_TRACK': '1',
    'OPENBLAS_NUM_THREADS': '1',
    'OPENCV_FOR_THREADS_NUM': '1',
    'OPENCV_IO_MAX_IMAGE_PIXELS': str(2**26),
}.items():
    os.environ.setdefault(_name, _value)
