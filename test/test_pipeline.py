# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The whole way from a frame to its mask."""

from dataclasses import replace
from functools import partial
import gc
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import NOTHING, report, Want
from nightseg_ros.perception.router import RouterConfig, RouteTable
from nightseg_ros.runtime import backends
from nightseg_ros.runtime.backends import open_backend
from nightseg_ros.runtime.pixels import fit, HostPixels, MULTIPLE
from nightseg_ros.runtime.torch_backend import TorchPixels
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.weights import load_weights, save_weights, WeightsError
import numpy as np
import pytest
from tiny_weights import LICENSE, weights_config, write_segmenter
import torch

EVERYTHING = Want(labels=True, confidence=True, color=True, overlay=True, translated=True)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return weights_config(tmp_path_factory.mktemp('weights'))


def load(files: WeightsConfig, **changes: object) -> Pipeline:
    config = PipelineConfig(weights=files, backend='torch', device='cpu', **changes)
    return Pipeline.load(config)


def frame(size: tuple[int, int], seed: int = 0, **names: object) -> Frame:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Frame(image=image, **names)


def light(stamp_s: float, camera: str = 'camera', ground: int = 128) -> Frame:
    """Return a frame that the test's estimator takes for day, or by its ground for night."""
    image = np.full((90, 160, 3), 128, np.uint8)
    image[30:] = ground
    return Frame(image=image, stamp_ns=round(stamp_s * 1e9), camera=camera)


dark = partial(light, ground=0)


@pytest.mark.parametrize('route', ['day', 'night', 'translate'])
def test_pictures_have_the_cameras_size(files, route):
    pipeline = load(files, route=route, overlay_route=False)
    for size in ((90, 160), (97, 131), (1, 1), (3, 700), (400, 64)):
        given = frame(size, stamp_ns=7, frame_id='optical', camera=str(size))
        (result,) = pipeline.process([given], EVERYTHING)
        assert result.frame is given
        assert result.decision.route == route
        assert result.labels is not None and result.labels.shape == size
        assert result.labels.max() < len(pipeline.taxonomy)
        assert result.confidence is not None and result.confidence.shape == size
        assert result.color is not None and result.overlay is not None
        np.testing.assert_array_equal(result.color, pipeline.taxonomy.palette()[result.labels])
        mixed = given.image * 0.5 + result.color * 0.5
        assert np.abs(result.overlay - mixed).max() <= 1
        assert (result.translated is not None) == (route == 'translate')
        assert set(result.ms) == {'estimate', 'shrink', 'network', 'post', 'render'}


@pytest.mark.parametrize('size', [(240, 320), (720, 960), (3, 5)])
def test_the_route_stands_in_a_corner_of_the_overlay_alone(files, size):
    pipeline = load(files, route='day', overlay_route=False)
    given = frame(size)
    (plain,) = pipeline.process([given], EVERYTHING)
    pipeline.change(overlay_route=True)
    (day,) = pipeline.process([given], EVERYTHING)
    pipeline = load(files, route='night')
    (night,) = pipeline.process([given], EVERYTHING)
    np.testing.assert_array_equal(day.labels, plain.labels)
    np.testing.assert_array_equal(day.color, plain.color)
    box = max(16, size[0] // 20)
    changed = np.flatnonzero((day.overlay != plain.overlay).any(2).any(1))
    assert changed.size and changed.max() < box
    if size[0] > 100:
        columns = np.flatnonzero((day.overlay != plain.overlay).any(2).any(0))
        assert columns.max() < size[1] // 2
        assert (day.overlay[:box] != night.overlay[:box]).any(), 'the text is another one'


def test_channel_order_does_not_change_the_mask(files):
    pipeline = load(files, route='day')
    rgb = frame((90, 160))
    bgr = replace(rgb, image=np.ascontiguousarray(rgb.image[..., ::-1]), order='bgr')
    one, two = (pipeline.process([f], EVERYTHING)[0] for f in (rgb, bgr))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.overlay, two.overlay)


def test_batched_frames_get_what_they_get_alone(files):
    frames = [
        frame((90, 160), 1, camera='a'), frame((120, 160), 2, camera='b'),
        frame((90, 160), 3, camera='c'), frame((180, 320), 4, camera='d'),
    ]  # fmt: skip
    together, apart = (load(files, route='night') for _ in range(2))
    for one, result in zip(frames, together.process(frames)):
        (alone,) = apart.process([one])
        assert result.frame is one
        assert (alone.labels == result.labels).mean() > 0.999


def test_auto_follows_the_light_of_each_camera_and_what_nobody_wants_is_not_computed(files):
    pipeline = load(files)
    routes = []
    for step in range(10):
        now = step / 4
        frames = [light(now, 'left'), dark(now, 'right'), (light if step < 4 else dark)(now)]
        left, right, front = pipeline.process(frames, [Want(), NOTHING, NOTHING])
        assert left.decision.route == 'day' and right.decision.route == 'night'
        assert left.labels is not None and right.labels is None
        assert set(right.ms) == {'estimate'}
        routes.append(front.decision.route)
    assert routes == ['day'] * 6 + ['night'] * 4


@pytest.mark.parametrize(
    ('route', 'change', 'words'),
    [
        ('day', {'day': ''}, "route 'day' needs weights, but weights.day is empty"),
        ('night', {'night': 'absent'}, "route 'night': weights 'absent' not found"),
        ('translate', {'translator': ''}, "'translate'.*weights.translator is empty"),
        ('translate', {'day': ''}, 'weights.day is empty'),
        ('auto', {'night': 'absent'}, "route 'night': weights 'absent'"),
        ('day', {'illumination': ''}, 'weights.illumination is empty'),
        ('translate', {'translator': 'day.safetensors'}, 'translator is wanted'),
        ('day', {'day': 'translator.safetensors'}, 'segmenter'),
        ('auto', {'night': 'cityscapes.safetensors'}, 'one taxonomy'),
    ],
)
def test_weights_that_are_missing_or_misplaced_are_named(files, route, change, words, tmp_path):
    write_segmenter(tmp_path / 'cityscapes.safetensors', taxonomy=CITYSCAPES19)
    for name in ('day', 'translator'):
        (tmp_path / f'{name}.safetensors').symlink_to(getattr(files, name))
    change = {name: str(tmp_path / file) if '.' in file else file for name, file in change.items()}
    with pytest.raises(WeightsError, match=words):
        load(replace(files, **change), route=route)


def test_only_needed_weights_are_loaded_and_their_licences_said(files):
    said: list[str] = []
    weights = replace(files, night='absent', translator='absent')
    config = PipelineConfig(weights=weights, backend='torch', device='cpu', route='day')
    pipeline = Pipeline.load(config, log=said.append)
    assert set(pipeline.describe()['weights']) == {'day', 'illumination'}
    assert [text for text in said if LICENSE in text] == [f'day.safetensors: {LICENSE}']


@pytest.mark.parametrize(('route', 'size'), [('day', (96, 160)), ('night', (192, 320))])
def test_each_route_has_the_size_of_its_own_weights(files, route, size, tmp_path):
    """As if the night network had been trained at twice the size; beside a day frame."""
    night = load_weights(files.night)
    path = tmp_path / 'night.safetensors'
    save_weights(path, night.tensors, replace(night.metadata, long_side=320))
    both = load(replace(files, night=str(path)))
    alone = load(replace(files, night=str(path)), route=route)
    backend = open_backend('torch', 'cpu')
    network = backend.load(load_weights(files.day if route == 'day' else path), print)
    given = [light(0, 'day'), dark(0, 'night')]
    [index] = [i for i, one in enumerate(given) if one.camera == route]
    fitted = fit(90, 160, max(size))
    assert fitted.padded == size
    shrunk = backend.pixels.shrink(given[index].image, 'rgb', fitted)
    wanted = backend.pixels.enlarge(network(shrunk[None])[0][0], fitted)
    np.testing.assert_array_equal(both.process(given)[index].labels, wanted)
    np.testing.assert_array_equal(alone.process([given[index]])[0].labels, wanted)


def test_light_that_is_no_number_is_dusk_and_a_warning(files):
    pipeline = load(files)
    weights = load_weights(files.illumination)
    weights.tensors.data['head.bias'][:] = np.nan
    broken = IlluminationEstimator(weights)
    pipeline.estimator, good = broken, pipeline.estimator
    decisions = []
    for step in range(12):
        # two good frames by day among them
        pipeline.estimator = good if step in (5, 6) else broken
        (result,) = pipeline.process([light(step / 4)], NOTHING)
        decisions.append((result.decision.state, result.decision.route))
        level, _, values = report(result, {}, None)
        assert (
            (level == 'WARN')
            == math.isnan(result.illumination.score)
            == (step not in (5, 6))
            == (values['score'] == 'unknown')
        )
        assert result.illumination.state == ('day' if step in (5, 6) else 'dusk')
    # half a second later the last good frame says nothing any more
    assert decisions == [('dusk', 'night')] * 5 + [('day', 'day')] * 4 + [('dusk', 'night')] * 3


def test_a_camera_whose_size_changes_does_not_fill_the_memory(files, monkeypatch):
    """The sizes used last stay ready, and of every cache at most what it may hold."""
    monkeypatch.setattr(backends, 'MOST_SHAPES', 3)
    config = PipelineConfig(weights=files, backend='openvino', device='cpu', route='translate')
    pipeline = Pipeline.load(config)

    def alive(*kinds: str) -> list[Any]:
        gc.collect()
        return [one for one in gc.get_objects() if type(one).__name__ in kinds]

    requests = ('InferRequest', '_InferRequestWrapper')
    before, compiled = len(alive(*requests)), list[tuple[int, int]]()
    real = backends.cached
    monkeypatch.setattr(
        backends, 'cached', lambda *given: compiled.append(size) or real(*given)
    )  # fmt: skip
    for other in ((32, 160), (64, 160), (128, 160), (160, 160), (160, 128), (160, 64)):
        # the second differs from the first by its padding alone
        for size in ((96, 160), (90, 160), other):
            pipeline.process([frame(size)], EVERYTHING)
    # of a translator and a segmenter
    assert 2 <= len(alive(*requests)) - before <= 2 * 3
    assert compiled.count((96, 160)) == 2, 'let go, though used a moment ago'
    assert len(compiled) == 2 * 7
    caches = [one for one in alive('_lru_cache_wrapper') if 'nightseg' in one.__module__]
    # of the rendered drives each split has its noise, and no node renders
    caches = [one for one in caches if 'simulation' not in one.__module__]
    assert len(caches) > 5
    assert [one for one in caches if one.cache_info().maxsize is None] == []


def test_changes_while_running(files):
    pipeline = load(replace(files, translator=''))
    pipeline.change(route='night')
    assert pipeline.process([light(0)])[0].decision.route == 'night'
    with pytest.raises(WeightsError, match='translator'):
        pipeline.change(route='translate', overlay_alpha=0.1)
    with pytest.raises(WeightsError, match='translator'):
        pipeline.change(route='auto', router=RouterConfig(table=RouteTable(night='translate')))
    with pytest.raises(ValueError, match='overlay_alpha'):
        pipeline.change(overlay_alpha=1.5)
    assert pipeline.config.route == 'night' and pipeline.config.overlay_alpha == 0.5
    pipeline.change(route='auto', overlay_alpha=1.0, overlay_route=False)
    (result,) = pipeline.process([light(1)], EVERYTHING)
    assert result.decision.route == 'day'
    np.testing.assert_array_equal(result.overlay, result.color)


# -- from a camera's pixels to a network's and back ---------------------------------------------


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
