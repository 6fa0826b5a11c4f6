# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Nodes as others write them, built from public libraries, for ``bench/live.py`` to compare with.

``PYTHONPATH=bench python -m peers NAME`` serves ``NAME/image_raw`` until SIGINT.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import os
import sys

import cv2
from nightseg_ros.dds import profile_environment
from nightseg_ros.networks import build_from
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.shared_memory import remove_orphans
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import load_weights, Weights
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
import torch

Pixels = npt.NDArray[np.uint8]
#: uint8 [H, W, 3] RGB and the network's size (width, height) in, by topic out:
#: labels uint8 [H, W] or colours uint8 [H, W, 3].
Segment = Callable[[Pixels, tuple[int, int]], dict[str, Pixels]]


def plain_node(weights: Weights) -> Segment:
    """Return the usual way: eager torch, logits at the camera's size, argmax in numpy."""
    about, palette = weights.metadata, CAMVID11.palette()
    network = build_from(weights).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))

    @torch.inference_mode()
    def segment(image: Pixels, size: tuple[int, int]) -> dict[str, Pixels]:
        small = cv2.resize(image.copy(), size)
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        logits = network((x - mean) / std)
        logits = torch.nn.functional.interpolate(logits, size=image.shape[:2], mode='bilinear')
        labels = np.argmax(logits[0].numpy(), axis=0).astype(np.uint8)
        return {'labels': labels, 'color': palette[labels]}

    return segment


def ort_node(weights: Weights) -> Segment:
    """Return a decent way: onnxruntime in float32 with our exported graph, OpenCV for the rest."""
    import onnxruntime

    graph = exported_graph(weights, print)
    session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name

    def segment(image: Pixels, size: tuple[int, int]) -> dict[str, Pixels]:
        labels = session.run(None, {name: cv2.resize(image, size)[None]})[0][0]
        large = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return {'labels': large}

    return segment


def segformer_node(weights: Weights) -> Segment:
    """Return SegFormer-B0 by transformers; random weights, which cost the same time."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    # the configuration's defaults are those of B0
    config = transformers.SegformerConfig(num_labels=len(CAMVID11))
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessor()

    @torch.inference_mode()
    def segment(image: Pixels, size: tuple[int, int]) -> dict[str, Pixels]:
        shape = dict(zip(('width', 'height'), size))
        outputs = network(**processor(image, size=shape, return_tensors='pt'))
        sizes = [image.shape[:2]]
        [labels] = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return {'labels': labels.numpy().astype(np.uint8)}

    return segment


PEERS = {peer.__name__: peer for peer in (plain_node, ort_node, segformer_node)}


def main() -> None:
    """Answer the latest image in its callback."""
    name = sys.argv[1]
    os.environ.update(profile_environment())
    remove_orphans()
    weights = load_weights('night')
    segment = PEERS[name](weights)
    rclpy.init(args=[])
    node = rclpy.create_node(f'{name}_node')
    publishers = {
        topic: node.create_publisher(Image, f'{name}/nightseg/{topic}', 1)
        for topic in ('labels', 'color')
    }

    def answer(given: Image) -> None:
        image = np.frombuffer(given.data, np.uint8).reshape(given.height, given.width, 3)
        height, width = fit(given.height, given.width, weights.metadata.long_side).padded
        for topic, pixels in segment(image, (width, height)).items():
            # a new message, filled as cv_bridge does
            encoding = 'mono8' if pixels.ndim == 2 else 'rgb8'
            message = Image(header=given.header, encoding=encoding)
            message.height, message.width = pixels.shape[:2]
            message.step = pixels.size // pixels.shape[0]
            message.data.frombytes(pixels.tobytes())
            publishers[topic].publish(message)

    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node.create_subscription(Image, f'{name}/image_raw', answer, qos)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
