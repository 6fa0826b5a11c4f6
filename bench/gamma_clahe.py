# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Write a labelled folder again with gamma and CLAHE: what a translator has to beat.

python bench/gamma_clahe.py DATA/night_dev out/enhanced
nightseg evaluate --route day --dataset folder:out/enhanced --out out/eval/enhanced
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.photometric import gamma_clahe
from nightseg_ros.data.sample import read_image


def main(source: str, out: str) -> None:
    """Convert every picture of ``source`` and copy its labels."""
    shutil.copytree(Path(source) / 'labels', Path(out) / 'labels', dirs_exist_ok=True)
    (Path(out) / 'images').mkdir(exist_ok=True)
    for sample in open_dataset(f'folder:{source}'):
        bright = cv2.cvtColor(gamma_clahe(read_image(sample.image)), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(Path(out) / 'images' / f'{sample.image.stem}.png'), bright)


if __name__ == '__main__':
    main(*sys.argv[1:])
