# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Whether the exported graph should shrink the image itself, and how many threads OpenCV wants.

``python bench/resize.py [WEIGHTS]``: a 720p frame through OpenCV and the graph, and through a
graph that takes 720p; then a whole frame of the pipeline, with an overlay, with OpenCV's threads
on and off. Candidates take turns; least and median milliseconds over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import openvino as ov

from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import thumbnail
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.backends import OpenVINOBackend
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import load_weights

ROUNDS = 40
CAMERA = (720, 1280)


def main() -> None:
    """Measure and print."""
    weights = load_weights(sys.argv[1] if len(sys.argv) > 1 else 'night')
    [image] = [np.resize(one, (*CAMERA, 3)) for one in made_up_images(CAMERA[1], 1)]
    size = fit(*CAMERA, weights.metadata.long_side)
    backend = OpenVINOBackend()
    run = backend.load(weights, print)
    whole = with_resize(weights, size.padded)
    config = PipelineConfig(route='night', backend='openvino', device='cpu')
    pipeline = Pipeline.load(config)
    everything = Want(labels=True, confidence=True, overlay=True)
    threads = cv2.getNumThreads()

    def frame(count: int) -> Callable[[], object]:
        def work() -> None:
            cv2.setNumThreads(count)
            pipeline.process([Frame(image=image)], everything)

        return work

    compare(
        {
            'OpenCV, then the graph': lambda: run(backend.pixels.shrink(image, 'rgb', size)[None]),
            'a graph that shrinks': lambda: whole(image[None]),
            'thumbnail': lambda: thumbnail(image),
            'estimate': lambda: pipeline.estimator.estimate(thumbnail(image)[None]),
            f'frame, OpenCV {threads} threads': frame(threads),
            'frame, OpenCV 1 thread': frame(1),
        }
    )


def with_resize(weights: object, padded: tuple[int, int]) -> Callable[[object], object]:
    """Return the graph with a bilinear resize from the camera's size in front."""
    core = ov.Core()
    model = core.read_model(exported_graph(weights, print))  # type: ignore[arg-type]
    model.reshape([1, *padded, 3])
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout('NHWC'))
    steps.input().tensor().set_shape([1, *CAMERA, 3])
    steps.input().preprocess().resize(ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR)
    steps.input().model().set_layout(ov.Layout('NHWC'))
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    request = core.compile_model(steps.build(), 'CPU', options).create_infer_request()
    return lambda batch: request.infer(batch, share_inputs=True)


def compare(candidates: dict[str, Callable[[], object]]) -> None:
    """Let them take turns and print their times."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for work in candidates.values():
        work()
    for _ in range(ROUNDS):
        for name, work in candidates.items():
            began = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - began) * 1e3)
    for name, values in times.items():
        print(f'{name:28} least {min(values):6.2f}  median {statistics.median(values):6.2f}')


if __name__ == '__main__':
    main()
