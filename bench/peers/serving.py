# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What every peer shares: one subscription of the latest image, answered in its callback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from nightseg_ros.dds import profile_environment
from nightseg_ros.shared_memory import remove_orphans

Pixels = npt.NDArray[np.uint8]


def serve(segment: Callable[[Image], dict[str, Pixels]]) -> None:
    """Publish what ``segment`` returns of each image, by topic, until SIGINT."""
    camera = sys.argv[1]
    os.environ.update(profile_environment())
    remove_orphans()
    rclpy.init(args=[])
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    node = rclpy.create_node(f'{camera}_node')
    publishers = {
        topic: node.create_publisher(Image, f'{camera}/nightseg/{topic}', 1)
        for topic in ('labels', 'color')
    }

    def answer(message: Image) -> None:
        for topic, pixels in segment(message).items():
            publishers[topic].publish(_message(message.header, pixels))

    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, f'{camera}/image_raw', answer, qos)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _message(header: object, pixels: Pixels) -> Image:
    """Return a new message, filled as cv_bridge does."""
    message = Image(header=header, encoding='mono8' if pixels.ndim == 2 else 'rgb8')
    message.height, message.width = pixels.shape[:2]
    message.step = pixels.size // pixels.shape[0]
    message.data.frombytes(pixels.tobytes())
    return message
