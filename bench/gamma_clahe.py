# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Write a labelled folder again with gamma and CLAHE: what a translator has to beat.

python bench/gamma_clahe.py DATA/night_dev out/enhanced
nightseg evaluate --route day --dataset folder:out/enhanced --out out/eval/enhanced
"""

from __future__ import annotations

from pathlib import Path
import shutil
import sys

import cv2
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.photometric import curve
from nightseg_ros.data.pictures import write_picture
from nightseg_ros.data.sample import read_image
import numpy as np
import numpy.typing as npt

#: Median luma that the gamma aims at, of 255: about that of CamVid by day.
MEDIAN = 105.0


def gamma_clahe(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """
    Return uint8 [H, W, 3] RGB with its median luma at ``MEDIAN`` and local contrast evened out.

    The gamma, 0.2 to 5, acts on all channels alike; CLAHE (8×8 tiles, clip limit 2, Zuiderveld
    1994) on CIELAB's lightness. ``image`` is uint8 [H, W, 3] RGB.
    """
    median = float(np.median(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))
    gamma = np.log(MEDIAN / 255) / np.log(np.clip(median, 1.0, 250.0) / 255)
    bright = curve(image, gain=1.0, gamma=float(np.clip(gamma, 0.2, 5.0)))
    lab = cv2.cvtColor(bright, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def main(source: str, out: str) -> None:
    """Convert every picture of ``source`` and copy its labels."""
    shutil.copytree(Path(source) / 'labels', Path(out) / 'labels', dirs_exist_ok=True)
    (Path(out) / 'images').mkdir(exist_ok=True)
    for sample in open_dataset(f'folder:{source}'):
        path = Path(out) / 'images' / f'{sample.image.stem}.png'
        write_picture(path, gamma_clahe(read_image(sample.image)))


if __name__ == '__main__':
    main(*sys.argv[1:])
