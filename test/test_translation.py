# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The verb that translates frames and shows them."""

from __future__ import annotations

from pathlib import Path

import cv2
from nightseg_ros.cli.main import main
import numpy as np
import pytest
from tiny_weights import write_translator


def picture(seed: int, size: tuple[int, int] = (96, 160)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / 'frames'
    folder.mkdir()
    for seed in range(5):
        size = (96, 160) if seed else (120, 90)
        cv2.imwrite(str(folder / f'a_{seed}.png'), picture(seed, size))
    return folder


def test_translate_writes_pictures_and_a_sheet(frames, tmp_path, monkeypatch):
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    generator = write_translator(tmp_path / 'generator.safetensors')
    (frames / 'a_broken.png').write_bytes(b'no picture')
    out = tmp_path / 'out'
    arguments = [
        'translate', str(frames), '--weights', str(generator), '--out', str(out),
        '--backend', 'torch', '--long-side', '160',
    ]  # fmt: skip
    assert main([*arguments]) == 1  # the broken one
    names = sorted(path.name for path in (out / 'images').iterdir())
    assert names == [f'a_{seed}.jpg' for seed in range(5)]
    assert cv2.imread(str(out / 'images' / 'a_0.jpg')).shape == (120, 90, 3)
    assert cv2.imread(str(out / 'contact_sheet.jpg')) is not None
    (frames / 'a_broken.png').unlink()
    assert main([*arguments]) == 0


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--long-side', '3'], '64 to 4096'),
        (['--style', 'moon'], "know no camera 'moon'"),
    ],
)
def test_translate_says_what_it_wants(frames, tmp_path, capsys, flags, words):
    generator = write_translator(tmp_path / 'generator.safetensors')
    arguments = ['translate', str(frames), '--weights', str(generator), '--out', str(tmp_path)]
    assert main([*arguments, *flags]) == 2
    assert words in capsys.readouterr().err
