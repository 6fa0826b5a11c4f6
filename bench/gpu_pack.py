# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Pack training data for a machine that takes small uploads only.

``python bench/gpu_pack.py DATA OUT.tar`` takes ``camvid/day_train`` as it is and the unlabelled
frames shrunk to 480 pixels, which is the size that the stages train at.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import cv2

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image
from nightseg_ros.files import partial_file
from nightseg_ros.runtime.pixels import fit

LIMIT = 40e6
LONG_SIDE = 480
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92]


def main() -> None:
    """Write the archive, or refuse one over the limit."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(out) as partial:
        with tarfile.open(partial, 'w') as archive:
            labelled = root / 'camvid' / 'day_train'
            for file in sorted(labelled.rglob('*.*')):
                archive.add(file, file.relative_to(root), filter=_anonymous)
            for light in ('day', 'night'):
                for sample in open_dataset(f'images:{root / "unlabelled" / light}:{light}'):
                    image = cv2.cvtColor(read_image(sample.image), cv2.COLOR_RGB2BGR)
                    if max(image.shape) > LONG_SIDE:
                        height, width = fit(*image.shape[:2], LONG_SIDE).scaled
                        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                    content = cv2.imencode('.jpg', image, QUALITY)[1].tobytes()
                    about = tarfile.TarInfo(f'unlabelled/{light}/{sample.image.stem}.jpg')
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))
        size = partial.stat().st_size
        if size > LIMIT:
            raise SystemExit(f'{size / 1e6:.1f} MB, at most {LIMIT / 1e6:.0f} are wanted')
    print(f"'{out}': {size / 1e6:.1f} MB")


def _anonymous(about: tarfile.TarInfo) -> tarfile.TarInfo:
    about.uid = about.gid = 0
    about.uname = about.gname = ''
    return about


if __name__ == '__main__':
    main()
