# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Nodes as others write them, built from public libraries, for ``bench/live.py`` to compare with.

``PYTHONPATH=bench python -m peers NAME`` serves ``NAME/image_raw`` until SIGINT.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import signal
import sys

import cv2
from nightseg_ros.dds import profile_environment
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.shared_memory import remove_orphans
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import load_weights
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
import torch

Pixels = npt.NDArray[np.uint8]
#: uint8 [H, W, 3] RGB in; by topic labels uint8 [H, W] or colours uint8 [H, W, 3] out.
Segment = Callable[[Pixels], dict[str, Pixels]]


def plain_node() -> Segment:
    """Return the usual way: eager torch, logits at the camera's size, argmax in numpy."""
    from nightseg_ros.networks import build_from
    from torch.nn import functional

    weights = load_weights('night')
    about = weights.metadata
    network = build_from(weights).eval()
    palette = CAMVID11.palette()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))

    @torch.inference_mode()
    def segment(image: Pixels) -> dict[str, Pixels]:
        height, width = fit(image.shape[0], image.shape[1], about.long_side).padded
        small = cv2.resize(image.copy(), (width, height))
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        logits = network((x - mean) / std)
        logits = functional.interpolate(logits, size=image.shape[:2], mode='bilinear')
        labels = np.argmax(logits[0].numpy(), axis=0).astype(np.uint8)
        return {'labels': labels, 'color': palette[labels]}

    return segment


def ort_node() -> Segment:
    """Return a decent way: onnxruntime in float32 with our exported graph, OpenCV for the rest."""
    from nightseg_ros.runtime.export import exported_graph
    import onnxruntime

    weights = load_weights('night')
    graph = exported_graph(weights, print)
    session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name

    def segment(image: Pixels) -> dict[str, Pixels]:
        height, width = fit(image.shape[0], image.shape[1], weights.metadata.long_side).padded
        small = cv2.resize(image, (width, height))
        labels = session.run(None, {name: small[None]})[0][0]
        size = image.shape[1], image.shape[0]
        return {'labels': cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)}

    return segment


def segformer_node() -> Segment:
    """Return SegFormer-B0 by transformers; random weights, which cost the same time."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    long_side = load_weights('night').metadata.long_side
    # the configuration's defaults are those of B0
    config = transformers.SegformerConfig(num_labels=len(CAMVID11))
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessor()

    @torch.inference_mode()
    def segment(image: Pixels) -> dict[str, Pixels]:
        height, width = fit(image.shape[0], image.shape[1], long_side).padded
        size = {'height': height, 'width': width}
        inputs = processor(image, size=size, return_tensors='pt')
        sizes = [image.shape[:2]]
        outputs = network(**inputs)
        [labels] = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return {'labels': labels.numpy().astype(np.uint8)}

    return segment


PEERS = {peer.__name__: peer for peer in (plain_node, ort_node, segformer_node)}


def main() -> None:
    """Answer the latest image in its callback."""
    name = sys.argv[1]
    os.environ.update(profile_environment())
    remove_orphans()
    rclpy.init(args=[])
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    node = rclpy.create_node(f'{name}_node')
    segment = PEERS[name]()
    publishers = {
        topic: node.create_publisher(Image, f'{name}/nightseg/{topic}', 1)
        for topic in ('labels', 'color')
    }

    def answer(given: Image) -> None:
        image = np.frombuffer(given.data, np.uint8).reshape(given.height, given.width, 3)
        for topic, pixels in segment(image).items():
            # a new message, filled as cv_bridge does
            encoding = 'mono8' if pixels.ndim == 2 else 'rgb8'
            message = Image(header=given.header, encoding=encoding)
            message.height, message.width = pixels.shape[:2]
            message.step = pixels.size // pixels.shape[0]
            message.data.frombytes(pixels.tobytes())
            publishers[topic].publish(message)

    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, f'{name}/image_raw', answer, qos)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
