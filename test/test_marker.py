# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Mask and stamp belong together: each picture shows the number that its stamp is made of.

The number is drawn as light and dark stripes, and the node's network labels light and dark; what
is read from a mask has to be the number of its stamp, whatever was dropped around it.
"""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from ros_harness import Camera, FaultyNode, pixels_of, served, stamp_ns, tiny_parameters
from sensor_msgs.msg import CameraInfo

pytestmark = [pytest.mark.ros, pytest.mark.slow]

#: Bits of a marker: 16 of the number, 4 of the camera.
BITS = 20
BEGIN = 1_700_000_000 * 10**9
STEP = 1_000_000
SIZES = {'front': (96, 160), 'rear': (180, 320)}


def marked(camera: int, number: int, size: tuple[int, int]) -> np.ndarray:
    """Return RGB uint8 [H, W, 3] with the stripes of camera and number."""
    value = camera << 16 | number
    bits = [value >> bit & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits, np.uint8) * 240 + 8, size[1] // BITS)
    return np.broadcast_to(columns[None, :, None], (*size, 3))


def read(plane: np.ndarray, threshold: int) -> tuple[int, int]:
    """Return camera and number of a plane, in which every row has to say the same."""
    width = plane.shape[1] // BITS
    middle = width // 2
    middles = plane[:, middle::width] > threshold
    assert (middles == middles[0]).all()
    value = sum(int(bit) << index for index, bit in enumerate(middles[0]))
    return value >> 16, value & 0xFFFF


def test_every_mask_shows_the_number_of_its_stamp_under_load_drops_and_jumps(
    tmp_path, monkeypatch
):
    (tmp_path / 'fault').write_text('marker')
    monkeypatch.setenv('NIGHTSEG_FAULT', str(tmp_path / 'fault'))
    dice = random.Random(3)
    names, topics = list(SIZES), ('labels', 'confidence')
    parameters = tiny_parameters(tmp_path, cameras=names, route='day')
    with served(tmp_path, parameters, kind=FaultyNode) as client:
        cameras = {name: Camera(client, name, *topics, reliable=False) for name in names}
        infos = {name: client.publisher(f'{name}/camera_info', CameraInfo) for name in names}
        for camera in cameras.values():
            camera.listen('camera_info')
            camera.connect()

        numbers, sent = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            name = dice.choice(names)
            # a frame is lost before the node, comes twice, or in the wrong order
            numbers[name] += dice.choice((1, 1, 1, 1, 2, 5, 0, -1))
            number = max(numbers[name], 0)
            image = marked(names.index(name), number, SIZES[name])
            message = cameras[name].frame(image, BEGIN + STEP * number, frame_id=name)
            infos[name].publish(CameraInfo(header=message.header, width=SIZES[name][1]))
            cameras[name].publisher.publish(message)
            sent[name] += 1
            client.spin(dice.choice((0.0, 0.002, 0.02)))

        def counted() -> dict[str, dict[str, int]] | None:
            """Return the counters of the cameras once every frame that came has ended."""
            found = {name: camera.counters() for name, camera in cameras.items()}
            for values in found.values():
                ends = [v for k, v in values.items() if k.startswith(('served', 'dropped.'))]
                if values['received'] != sum(ends):
                    return None
            return found

        values = client.until(counted, 'every frame accounted for')
    for index, name in enumerate(names):
        for topic in topics:
            masks = cameras[name].got(topic)
            assert len(masks) > 20, 'few masks would prove little'
            stamps = [stamp_ns(mask) for mask in masks]
            assert stamps == sorted(set(stamps)), 'in order, none twice'
            for mask in masks:
                plane = pixels_of(mask)
                assert plane.shape == SIZES[name]
                assert mask.header.frame_id == name
                number = (stamp_ns(mask) - BEGIN) // STEP
                threshold = 0 if topic == 'labels' else 150
                assert read(plane, threshold) == (index, number), (name, topic)
        reasons = ('superseded', 'out_of_order', 'duplicate_stamp')
        dropped = [values[name][f'dropped.{reason}'] for reason in reasons]
        assert all(dropped), f'without drops this proves little: {dropped}'
        assert values[name]['received'] == values[name]['served'] + sum(dropped) <= sent[name]
