# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""SegFormer-B0 by transformers in its usual pipeline; random weights, which cost the same time."""

from __future__ import annotations

import numpy as np
import torch
from sensor_msgs.msg import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor
from transformers.utils import logging

from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import load_weights
from peers.serving import Pixels, serve


def main() -> None:
    """Serve at the input size of the shipped night weights."""
    logging.set_verbosity_error()
    long_side = load_weights('night').metadata.long_side
    # the configuration's defaults are those of B0
    config = SegformerConfig(num_labels=len(CAMVID11))
    network = SegformerForSemanticSegmentation(config).eval()
    processor = SegformerImageProcessor()

    @torch.inference_mode()
    def segment(message: Image) -> dict[str, Pixels]:
        shape = (message.height, message.width)
        image = np.frombuffer(message.data, np.uint8).reshape(*shape, 3)
        height, width = fit(*shape, long_side).padded
        size = {'height': height, 'width': width}
        inputs = processor(image, size=size, return_tensors='pt')
        outputs = network(**inputs)
        [labels] = processor.post_process_semantic_segmentation(outputs, target_sizes=[shape])
        return {'labels': labels.numpy().astype(np.uint8)}

    serve(segment)


if __name__ == '__main__':
    main()
