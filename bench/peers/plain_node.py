# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The usual node: eager torch, logits at the camera's size, argmax and colours in numpy."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from sensor_msgs.msg import Image
from torch.nn import functional

from nightseg_ros.networks import build_from
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import load_weights
from peers.serving import Pixels, serve


def main() -> None:
    """Serve with the shipped night weights."""
    weights = load_weights('night')
    about = weights.metadata
    network = build_from(weights).eval()
    palette = Taxonomy.from_dict(about.taxonomy).palette()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (about.mean, about.std))

    @torch.inference_mode()
    def segment(message: Image) -> dict[str, Pixels]:
        shape = (message.height, message.width)
        image = np.array(message.data, np.uint8).reshape(*shape, 3)
        height, width = fit(*shape, about.long_side).padded
        small = cv2.resize(image, (width, height))
        x = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        logits = network((x - mean) / std)
        logits = functional.interpolate(logits, size=shape, mode='bilinear')
        labels = np.argmax(logits[0].numpy(), axis=0).astype(np.uint8)
        return {'labels': labels, 'color': palette[labels]}

    serve(segment)


if __name__ == '__main__':
    main()
