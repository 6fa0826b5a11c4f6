# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How often an illumination estimator tells day from night, camera by camera, as CSV.

``python bench/illumination.py WEIGHTS day:CAMERA:PATH night:CAMERA:PATH…`` takes the sources of
``nightseg train illumination``. A frame is called day where its score is above 0.5.
"""

from __future__ import annotations

from collections import defaultdict
import csv
import sys

from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnail
from nightseg_ros.training.illumination import load_thumbnails
from nightseg_ros.weights import load_weights
import numpy as np


def main(weights: str, *specs: str) -> None:
    """Print a row a camera, and the mean over the cameras."""
    estimator = IlluminationEstimator(load_weights(weights))
    right: dict[str, dict[bool, list[bool]]] = defaultdict(lambda: {True: [], False: []})
    for (camera, light), images in load_thumbnails(specs).items():
        found = estimator.estimate(np.stack([thumbnail(image) for image in images]))
        right[camera][light == 'day'] += [(one.score > 0.5) == (light == 'day') for one in found]
    table = csv.writer(sys.stdout)
    table.writerow(['camera', 'day', 'night', 'balanced accuracy'])
    means = []
    for camera, by_light in right.items():
        means.append(float(np.mean([np.mean(hits) for hits in by_light.values() if hits])))
        counts = [len(by_light[True]), len(by_light[False])]
        table.writerow([camera, *counts, f'{100 * means[-1]:.1f}'])
    table.writerow(['all, cameras weighted equally', '', '', f'{100 * np.mean(means):.1f}'])


if __name__ == '__main__':
    main(*sys.argv[1:])
