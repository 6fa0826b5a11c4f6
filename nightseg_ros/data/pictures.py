# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Pictures that people look at: written files, banners, contact sheets, videos."""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path

import cv2
from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import Image, Order
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX


class PictureError(ValueError):
    """A picture or video that cannot be written."""


def write_picture(path: Path, picture: Image, *, quality: int = 92) -> None:
    """
    Write uint8 [H, W] or RGB [H, W, 3] as PNG or JPEG by the path's suffix, whole or not at all.

    ``PictureError`` where it cannot be encoded; ids belong into PNG, since JPEG changes them.
    """
    replace_file(path, encode_picture(path.name, picture, quality=quality))


def encode_picture(name: str, picture: Image, *, quality: int = 92, order: Order = 'rgb') -> bytes:
    """Return what ``write_picture`` writes into a file of this name."""
    colored = picture.ndim == 3 and order == 'rgb'
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if colored else picture
    suffix = Path(name).suffix
    # level 1 is three times as fast as the default and 10 to 20 % larger
    png = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    settings = png if suffix == '.png' else [cv2.IMWRITE_JPEG_QUALITY, quality]
    good, content = cv2.imencode(suffix, bgr, settings)
    if not good:
        raise PictureError(f"'{name}': {picture.shape} cannot be encoded as '{suffix}'")
    return content.tobytes()


def banner(picture: Image, text: str, color: tuple[int, int, int] = (255, 255, 255)) -> Image:
    """Return a copy of uint8 RGB [H, W, 3] with a line of text on a dark bar at the top."""
    height, width = picture.shape[:2]
    result = picture.copy()
    bar = max(14, round(height / 15))
    scale = bar / 34
    wide = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
    scale = min(scale, scale * (width - 8) / max(wide, 1))
    result[:bar] = result[:bar] // 4
    cv2.putText(result, text, (4, round(bar * 0.72)), _FONT, scale, color, 1, cv2.LINE_AA)
    return result


def contact_sheet(
    tiles: Sequence[tuple[Image, Image, str, tuple[int, int, int]]],
    *,
    columns: int = 3,
    tile_width: int = 320,
) -> Image:
    """Lay out pairs of RGB uint8, the left ``tile_width`` wide, with a coloured line above."""
    if not tiles:
        raise PictureError('a contact sheet needs at least one picture')
    cells = []
    for left, right, text, color in tiles:
        height = max(1, round(left.shape[0] * tile_width / left.shape[1]))
        widths = (tile_width, max(1, round(right.shape[1] * height / right.shape[0])))
        pair = [
            cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA)
            for p, width in zip((left, right), widths)
        ]
        bar = np.full((22, sum(widths), 3), 24, np.uint8)
        cv2.putText(bar, text, (5, 15), _FONT, 0.42, color, 1, cv2.LINE_AA)
        cells.append(np.vstack([bar, np.hstack(pair)]))
    rows = math.ceil(len(cells) / columns)
    columns = min(columns, len(cells))
    cell_height, cell_width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    sheet = np.full(
        (rows * (cell_height + 6) + 6, columns * (cell_width + 6) + 6, 3), 60, np.uint8
    )
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        y, x = 6 + row * (cell_height + 6), 6 + column * (cell_width + 6)
        sheet[y:, x:][: cell.shape[0], : cell.shape[1]] = cell
    return sheet
