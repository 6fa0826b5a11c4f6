# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The rendered drive: exact labels, determinism, light, splits and arguments."""

from multiprocessing.context import SpawnContext
import os
import signal
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.files import process_context
from nightseg_ros.simulation.canvas import Camera, Canvas
from nightseg_ros.simulation.drive import Drive, DriveFrame, LIGHTS, render, write_drive
from nightseg_ros.simulation.street import CAR, Draw, ROAD, SKY, Street
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from tiny_data import files_of

SIZE = (160, 90)


@pytest.fixture(scope='module')
def street():
    return Street(4)


@pytest.fixture(scope='module')
def drive():
    return Drive(seed=2, size=SIZE, fps=0.5, seconds=60)


def test_a_whole_street_shows_every_class(street):
    seen: set[int] = set()
    for position in range(0, 480, 32):
        seen |= set(np.unique(render(street, position, 'day', size=SIZE).labels).tolist())
    assert seen == set(range(len(CAMVID11)))


@pytest.mark.parametrize('light', LIGHTS)
def test_light_changes_the_image_and_never_the_layout(street, light):
    noon = render(street, 100.0, 'day', size=SIZE, seed=1)
    frame = render(street, 100.0, light, size=SIZE, seed=1)
    assert frame.light == light
    if light == 'tunnel':
        assert frame.ambient < 0.2 and (frame.labels == SKY).mean() < 0.02
    else:
        np.testing.assert_array_equal(frame.labels, noon.labels)
        np.testing.assert_array_equal(frame.depth, noon.depth)
    if light != 'day':
        assert frame.ambient < noon.ambient
        # glare may well be as bright as noon
        assert light == 'glare' or frame.image.mean() < noon.image.mean()
    for position in (0, 77, 333):
        assert 20 < render(street, position, light, size=SIZE).image.mean() < 190


def test_glare_saturates_more_than_night(street):
    def saturated(light: str) -> float:
        frames = [render(street, p, light, size=(320, 180)) for p in range(0, 240, 30)]
        return float(np.mean([(f.image.min(2) > 250)[f.labels != SKY].mean() for f in frames]))

    assert saturated('glare') > 2 * saturated('night')


def test_depth_is_the_flat_road_under_the_camera_and_infinite_in_the_sky(street):
    frame = render(street, 50.0, 'day', size=(320, 180))
    np.testing.assert_array_equal(np.isinf(frame.depth), frame.labels == SKY)
    bottom = frame.depth[-1][frame.labels[-1] == ROAD]
    assert bottom.size and np.ptp(bottom) < 1e-3 and 2 < bottom.mean() < 6


def test_drive_order_stamps_and_content(drive):
    frames = [drive.frame(index) for index in range(len(drive))]
    assert len(frames) == len(drive) == 30
    assert {b.stamp_ns - a.stamp_ns for a, b in zip(frames, frames[1:])} == {2 * 10**9}
    for frame, after in zip(frames, [*frames[1:], frames[-1]]):
        assert frame.image.shape == (90, 160, 3) and frame.image.dtype == np.uint8
        assert frame.labels.shape == frame.depth.shape == (90, 160)
        assert frame.labels.dtype == np.uint8 and frame.depth.dtype == np.float32
        assert (frame.labels == ROAD).mean() > 0.1 and 0 <= frame.ambient <= 1
        # a portal 25 m ahead hides the sky
        if 'tunnel' not in (frame.light, after.light):
            assert (frame.labels == SKY).any()
    order = list(dict.fromkeys(frame.light for frame in frames))
    assert order == ['day', 'dusk', 'night', 'tunnel', 'glare']
    means = {light: np.mean([f.ambient for f in frames if f.light == light]) for light in order}
    assert means['day'] > 0.85 > 0.7 > means['dusk'] > 0.3 > means['night']


def test_objects_pass_smoothly(street):
    """Between frames 0.1 m apart few labels change; 20 m apart many do."""

    def change(step: float) -> float:
        a, b = (render(street, 200 + d, 'day', size=SIZE).labels for d in (0, step))
        return float((a != b).mean())

    assert change(0.1) < 0.05 < change(20)


def test_same_arguments_same_bytes_in_any_order(drive):
    def content(frame: DriveFrame) -> tuple[bytes, ...]:
        return frame.image.tobytes(), frame.labels.tobytes(), frame.depth.tobytes()

    again = Drive(seed=2, size=SIZE, fps=0.5, seconds=60)
    for index in (25, 3, 15):
        assert content(drive.frame(index)) == content(again.frame(index))
    assert content(drive.frame(3)) != content(drive.frame(4))


@given(a=st.integers(0, 2**32), b=st.integers(0, 2**32))
def test_no_value_of_one_split_can_be_drawn_by_the_other(a, b):
    train, demo = Draw([a], 'train'), Draw([b], 'demo')
    assert train.rng.random() != demo.rng.random()
    slices = [{int(draw.between(0, 32)) for _ in range(40)} for draw in (train, demo)]
    assert all(part % 2 == 0 for part in slices[0]) and all(part % 2 for part in slices[1])


@settings(max_examples=10)
@given(width=st.integers(16, 200), height=st.integers(16, 200), light=st.sampled_from(LIGHTS))
def test_any_size(street, width, height, light):
    frame = render(street, 30.0, light, size=(width, height))
    assert frame.image.shape == (height, width, 3)
    assert frame.labels.shape == frame.depth.shape == (height, width)


@settings(max_examples=60)
@given(
    corners=st.lists(st.tuples(st.floats(-6, 6), st.floats(-3, 5)), min_size=3, max_size=3),
    depth=st.floats(2, 40), bend=st.floats(-0.002, 0.002),
)  # fmt: skip
def test_a_polygon_covers_the_pixels_whose_centre_it_covers(corners, depth, bend):
    camera = Camera(width=64, height=48, x=0.3, z=10.0, bend=bend)
    points = [(x, y, 10 + depth) for x, y in corners]
    canvas = Canvas(camera)
    canvas.polygon(CAR, (9, 8, 7), points)
    u, v, _ = camera.project(np.array(points))
    px, py = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    sides = np.stack([
        (u[(i + 1) % 3] - u[i]) * (py - v[i]) - (v[(i + 1) % 3] - v[i]) * (px - u[i])
        for i in range(3)
    ])  # fmt: skip
    lengths = np.hypot(np.roll(u, -1) - u, np.roll(v, -1) - v)[:, None, None] + 1e-9
    clear = (np.abs(sides) > 1e-3 * lengths * (1 + lengths)).all(0)
    inside = (sides > 0).all(0) | (sides < 0).all(0)
    covered = canvas.label == CAR
    np.testing.assert_array_equal(covered[clear], inside[clear])
    assert (canvas.albedo[covered] == (9, 8, 7)).all()
    np.testing.assert_allclose(canvas.depth[covered], depth, rtol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'size': (8, 90)}, 'size'), ({'fps': 0}, 'fps'), ({'seconds': -1.0}, 'seconds'),
        ({'seconds': float('nan')}, 'seconds'), ({'seed': -1}, 'seed'),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Drive(**arguments).frame(0)


def test_ctrl_c_ends_the_rendering_and_its_processes_without_their_words(tmp_path):
    code = f"""
from nightseg_ros.simulation.drive import Drive, write_drive
drive = Drive(size={SIZE}, fps=100, seconds=100)
write_drive({str(tmp_path / 'drive')!r}, drive, processes=2, progress=lambda *_: print(flush=True))
"""
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', code], **pipes, start_new_session=True) as child:
        try:
            child.stdout.readline()
            # as a terminal does
            os.killpg(child.pid, signal.SIGINT)
            # they have ended once nobody can write there
            _, error = child.communicate(timeout=60)
        finally:
            child.kill()
    assert 'Process ' not in error and error.endswith('KeyboardInterrupt\n'), error
    assert not list(tmp_path.iterdir())


def test_without_a_place_for_locks_one_process_renders_the_same(tmp_path, monkeypatch):
    """As in a container without /dev/shm."""
    short = Drive(seed=2, size=SIZE, fps=0.5, seconds=4)
    write_drive(tmp_path / 'a' / 'drive', short, processes=1)

    def refuse(context: SpawnContext) -> None:
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(SpawnContext, 'Lock', refuse)
    assert process_context() is None
    write_drive(tmp_path / 'b' / 'drive', short, processes=2)
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')
