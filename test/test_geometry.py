# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""From a camera's pixels to a network's and back."""

from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.runtime.pixels import fit, HostPixels, MULTIPLE
from nightseg_ros.runtime.torch_backend import TorchPixels
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
import torch

sides = st.integers(1, 700)


@pytest.mark.parametrize(
    ('camera', 'scaled', 'padded'),
    [
        ((720, 1280), (270, 480), (288, 480)),
        ((360, 480), (360, 480), (384, 480)),
        ((1080, 1920), (270, 480), (288, 480)),
        ((1280, 720), (480, 270), (480, 288)),
        ((1, 1), (480, 480), (480, 480)),
        ((1, 5000), (2, 480), (32, 480)),
    ],
)
def test_sizes(camera, scaled, padded):
    size = fit(*camera, 480)
    assert (size.scaled, size.padded) == (scaled, padded)
    assert size.labels == tuple(side / 2 for side in scaled)


@given(sides, sides, st.sampled_from(['rgb', 'bgr']), st.integers(0, 99))
def test_shrinking_keeps_places_and_channels(height, width, order, seed):
    """A picture that is a ramp of its own coordinates tells where each pixel came from."""
    rows = np.linspace(0, 255, height)[:, None] * np.ones(width)
    columns = np.ones(height)[:, None] * np.linspace(0, 255, width)
    image = np.stack([rows, columns, np.full((height, width), seed)], 2).astype(np.uint8)
    size = fit(height, width, 160)
    source = image if order == 'rgb' else np.ascontiguousarray(image[..., ::-1])
    small = HostPixels().shrink(source, order, size)
    assert small.shape == (*size.padded, 3) and small.dtype == np.uint8
    h, w = size.scaled
    assert max(h, w) == 160
    assert all(p % MULTIPLE == 0 and 0 <= p - s < MULTIPLE for p, s in zip(size.padded, (h, w)))
    # a pixel's place may be off by half a pixel of the coarser of the two grids, and by rounding
    for axis, (camera, network) in enumerate(zip((height, width), (h, w))):
        expected = (np.arange(network) + 0.5) / network * camera - 0.5
        expected = np.clip(expected, 0, camera - 1) / max(camera - 1, 1) * 255
        got = small[:h, :w, axis].mean(1 - axis).astype(float)
        assert np.abs(got - expected).max() <= 2 + 255 / camera
    assert (small[:h, :w, 2] == seed).all()
    assert (small[h:] == small[h - 1]).all() and (small[:, w:] == small[:, w - 1, None]).all()


def nearest(length: int, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's source by its centre, and where the centre is on no border."""
    place = (2 * np.arange(length) + 1) * source
    return place // (2 * length), place % (2 * length) != 0


@given(st.integers(2, 300), st.integers(2, 300), st.integers(0, 9))
def test_labels_return_to_where_they_were(height, width, seed):
    size = fit(height, width, 160)
    h, w = size.labels
    plane = np.random.default_rng(seed).integers(0, 11, (h, w), dtype=np.uint8)
    padded = np.full((size.padded[0] // 2, size.padded[1] // 2), 255, np.uint8)
    padded[:h, :w] = plane
    big = HostPixels().enlarge(padded, size)
    assert big.shape == (height, width)
    rows, clear_rows = nearest(height, h)
    columns, clear_columns = nearest(width, w)
    expected = plane[rows][:, columns]
    np.testing.assert_array_equal(
        big[clear_rows][:, clear_columns], expected[clear_rows][:, clear_columns]
    )
    assert big.max() <= 10
    host, palette = HostPixels(), CAMVID11.palette()
    np.testing.assert_array_equal(
        host.enlarge(host.colorize(padded, palette), size), host.colorize(big, palette)
    )


@pytest.mark.parametrize('camera', [(90, 160), (97, 131), (360, 640)])
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_device_and_host_agree(camera, order):
    """The device's pixel work is tried on torch's CPU; a GPU runs the same calls."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (*camera, 3), dtype=np.uint8)
    size = fit(*camera, 160)
    host, device = HostPixels(), TorchPixels(torch.device('cpu'))
    plane = rng.integers(0, 11, (size.padded[0] // 2, size.padded[1] // 2), dtype=np.uint8)
    labels = host.enlarge(plane, size)
    on_device = device.enlarge(torch.from_numpy(plane), size)
    clear = np.ix_(*(nearest(c, n)[1] for c, n in zip(camera, size.labels)))
    np.testing.assert_array_equal(device.download(on_device)[clear], labels[clear])
    color = host.colorize(labels, CAMVID11.palette())
    on_device_color = device.colorize(torch.from_numpy(labels), CAMVID11.palette())
    np.testing.assert_array_equal(device.download(on_device_color), color)
    few = device.enlarge(device.colorize(torch.from_numpy(plane), CAMVID11.palette()), size)
    np.testing.assert_array_equal(device.download(few)[clear], color[clear])
    np.testing.assert_allclose(
        device.download(device.blend(image, order, on_device_color, 0.4)).astype(int),
        host.blend(image, order, color, 0.4).astype(int), atol=1,
    )  # fmt: skip
    smooth = np.clip(np.add.outer(np.arange(camera[0]), np.arange(camera[1])) / 3, 0, 255)
    image = np.repeat(smooth.astype(np.uint8)[..., None], 3, 2)
    small = host.shrink(image, order, size).astype(int)
    assert np.abs(device.download(device.shrink(image, order, size)) - small).mean() < 1.5
    restored = device.restore(torch.from_numpy(small.astype(np.uint8)), size)
    expected = host.restore(small.astype(np.uint8), size).astype(int)
    assert np.abs(device.download(restored).astype(int) - expected).max() <= 2
