# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the player publishes and when; the processes themselves are tested by the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightseg_ros.bags.reader import BagError
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.node.replay import Pacer, open_recording
from nightseg_ros.perception.frame import Frame

START = 10**18


def write_bag(path: Path, topics: list[str]) -> Path:
    with BagWriter(path) as bag:
        for index in range(6):
            for place, topic in enumerate(topics):
                image = np.full((8, 8, 3), 10 * index + place, np.uint8)
                stamp = START + index * 100 + place
                bag.write_frame(topic, Frame(image=image, stamp_ns=stamp))
        bag.write_labels('/left/nightseg/labels', np.zeros((8, 8), np.uint8), stamp_ns=START)
        bag.write_labels('/left/labels_truth', np.zeros((8, 8), np.uint8), stamp_ns=START)
    return path


@given(
    stamps=st.lists(st.integers(0, 10**13), min_size=1, max_size=20).map(sorted),
    rate=st.floats(0.01, 100),
    start=st.integers(0, 10**15),
)
def test_the_pacer_keeps_distances_at_its_rate(stamps: list[int], rate: float, start: int) -> None:
    pacer = Pacer(rate)
    due = [pacer.due_ns(stamp, start) for stamp in stamps]
    assert due[0] == start
    for stamp, time in zip(stamps, due):
        assert abs((time - start) * rate - (stamp - stamps[0])) <= 1 + rate
        assert abs(pacer.recorded_ns(time) - stamp) <= 1 + rate


def test_a_restarted_pacer_forgets() -> None:
    pacer = Pacer(1.0)
    pacer.due_ns(100, 0)
    pacer.restart()
    assert pacer.due_ns(50, 1000) == 1000
    with pytest.raises(ValueError, match='rate'):
        Pacer(0.0)


def test_every_camera_of_a_bag_is_played_in_the_order_of_the_stamps(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', ['/left/image_raw', '/right/image_raw'])
    recording = open_recording(path, None)
    assert set(recording.topics) == {'/left/image_raw', '/right/image_raw'}
    played = list(recording.play(print))
    assert [item.stamp_ns for item in played] == sorted(item.stamp_ns for item in played)
    assert [item.topic for item in played] == ['/left/image_raw', '/right/image_raw'] * 6
    # as recorded, byte for byte: the pixels are the message's last bytes
    assert all(isinstance(item.content, bytes) for item in played)
    assert played[3].content[-192:] == bytes([11]) * 192


def test_one_topic_can_be_asked_for_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', ['/left/image_raw', '/right/image_raw'])
    recording = open_recording(path, 'right/image_raw')
    assert {item.topic for item in recording.play(print)} == {'/right/image_raw'}
    with pytest.raises(BagError, match='/left/image_raw'):
        open_recording(path, '/rear/image_raw')


def test_a_folder_is_one_camera_and_skips_what_is_broken(tmp_path: Path) -> None:
    import cv2

    for index in range(3):
        cv2.imwrite(str(tmp_path / f'{index}.png'), np.full((8, 8, 3), index, np.uint8))
    (tmp_path / '1.png').write_bytes(b'torn')
    said: list[str] = []
    recording = open_recording(tmp_path, None, 4.0)
    played = list(recording.play(said.append))
    assert [(item.stamp_ns, item.topic) for item in played] == [
        (0, 'camera/image_raw'), (500_000_000, 'camera/image_raw'),
    ]  # fmt: skip
    assert len(said) == 1 and '1.png' in said[0]
