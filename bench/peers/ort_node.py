# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A plain but decent node: onnxruntime in float32 with our exported graph, OpenCV for the rest."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
from sensor_msgs.msg import Image

from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import load_weights
from peers.serving import Pixels, serve


def main() -> None:
    """Serve with the shipped night weights."""
    weights = load_weights('night')
    path = str(exported_graph(weights, print))
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name

    def segment(message: Image) -> dict[str, Pixels]:
        shape = (message.height, message.width)
        image = np.frombuffer(message.data, np.uint8).reshape(*shape, 3)
        height, width = fit(*shape, weights.metadata.long_side).padded
        small = cv2.resize(image, (width, height))
        labels = session.run(None, {name: small[None]})[0][0]
        return {
            'labels': cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST),
        }

    serve(segment)


if __name__ == '__main__':
    main()
