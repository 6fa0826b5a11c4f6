# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the player publishes and when; the processes themselves are tested by the demo."""

from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.bags.reader import BagError
from nightseg_ros.bags.storage import Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.cli.run import _inputs, RunOptions
from nightseg_ros.config import ConfigError
from nightseg_ros.node.replay import GAP_NS, Pacer, ReplaySource
from nightseg_ros.perception.frame import Frame
import numpy as np
import pytest
from video_samples import packets

START = 10**18


def frame(value: int, stamp_ns: int) -> Frame:
    return Frame(image=np.full((8, 8, 3), value, np.uint8), stamp_ns=stamp_ns)


def write_packet(bag: BagWriter, topic: str, number: int, data: bytes, stamp_ns: int) -> None:
    bag.write_stamped(
        topic, 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket', pts=number, flags=0,
        width=64, height=48, encoding='libx264', is_bigendian=False,
        data=np.frombuffer(data, np.uint8), stamp_ns=stamp_ns,
    )  # fmt: skip


@given(
    stamps=st.lists(st.integers(0, 10**13), min_size=1, max_size=20).map(sorted),
    rate=st.floats(0.01, 100),
    start=st.integers(0, 10**15),
)
def test_the_pacer_keeps_distances_at_its_rate(stamps, rate, start):
    pacer = Pacer(rate, longest_ns=10**13)
    due = [pacer.due(stamp, start) for stamp in stamps]
    assert due[0] == start
    for stamp, time in zip(stamps, due):
        assert abs((time - start) * rate - (stamp - stamps[0])) <= 1 + rate
        assert abs(pacer.played(time) - stamp) <= 1 + rate


@given(
    times=st.lists(st.integers(-(10**18), 2 * 10**18), min_size=1, max_size=20),
    steps=st.lists(st.integers(0, GAP_NS), min_size=1, max_size=20),
)
def test_the_pacer_waits_for_no_clock_that_was_set(times, steps):
    pacer, now = Pacer(1.0), 5
    for time in times:
        for step in steps:
            time += step
            due = pacer.due(time, now)
            assert due - now <= GAP_NS and pacer.played(due) == time
            now = due
    assert now - 5 == pacer.elapsed_ns


def test_a_bag_is_played_by_the_time_of_its_recording(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(6):
            received = START + index * 10**8
            # a clock without a battery that is set on the way, and one that counts from power-up
            host = received if index > 2 else index * 10**8 + 7
            bag.write_frame('/a/image', frame(index, host), received_ns=received)
            own = 653 * 10**9 + index * 10**8
            bag.write_frame('/b/image', frame(index, own), received_ns=received + 1)
        bag.write_image(
            '/c/image', np.zeros((8, 8), np.float32), '32FC1', stamp_ns=START, received_ns=START
        )
    source = ReplaySource(tmp_path / 'bag')
    assert source.note == 'no cameras: /c/image (32FC1)'
    played = [(time - START, topic) for time, topic, _ in source.messages(print)]
    assert played == [
        (index * 10**8 + place, topic)
        for index in range(6)
        for place, topic in enumerate(['/a/image', '/b/image'])
    ]


@pytest.mark.parametrize('video', [False, True])
@pytest.mark.parametrize('set_s', [-(10**9), -5, 30, 10**9])
def test_cameras_stay_together_where_the_recorders_clock_is_set(tmp_path, set_s, video):
    index_of = {}
    with BagWriter(tmp_path / 'bag') as bag:
        for index, data in packets('libx264', 6):
            time = START + index * 10**8 + (set_s * 10**9 if index > 2 else 0)
            index_of |= {time: index, time + 1: index}
            bag.write_frame('/a/image', frame(index, time))
            if video:
                write_packet(bag, '/b/packets', index, data, time + 1)
            else:
                bag.write_frame('/b/image', frame(index, time + 1))
    played = list(ReplaySource(tmp_path / 'bag').messages(print))
    indices = [index_of[content.stamp_ns] for _, _, content in played]
    assert indices[0::2] == indices[1::2] == [*range(6)]
    pacer, now = Pacer(1.0), 0
    for time, _, _ in played:
        now = max(now, pacer.due(time, now))
    assert now < 2 * 10**9


def test_every_camera_of_a_bag_is_played_in_the_order_of_the_stamps(tmp_path):
    cameras = ('/left/image_raw', '/right/image_raw')
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(6):
            for place, topic in enumerate(cameras):
                bag.write_frame(topic, frame(10 * index + place, START + index * 100 + place))
        for topic in ('/left/nightseg/labels', '/left/labels_truth'):
            bag.write_labels(topic, np.zeros((8, 8), np.uint8), stamp_ns=START)
    source = ReplaySource(tmp_path / 'bag')
    assert set(source.topics) == {*cameras}
    stamps, topics, contents = zip(*source.messages(print))
    assert list(stamps) == sorted(stamps)
    assert topics == cameras * 6
    # as recorded, byte for byte: the pixels are the message's last bytes
    assert all(isinstance(content, Message) for content in contents)
    assert contents[3].data[-192:] == bytes([11]) * 192
    one = ReplaySource(tmp_path / 'bag', ['right/image_raw'], also=['/left/labels_truth'])
    assert set(one.topics) == {'/right/image_raw', '/left/labels_truth'}
    with pytest.raises(BagError, match='/left/image_raw'):
        ReplaySource(tmp_path / 'bag', ['/rear/image_raw'])
    also = ReplaySource(tmp_path / 'bag', also=['left/labels_truth'])
    assert also.topics.keys() - {*cameras} == also.beside == {'/left/labels_truth'}
    with pytest.raises(BagError, match="has no topic '/left/truth'; did you mean"):
        ReplaySource(tmp_path / 'bag', also=['/left/truth'])
    with pytest.raises(ConfigError, match='is no bag'):
        ReplaySource(tmp_path / 'v.mp4', also=['/tf'])


def test_only_packets_that_bring_a_picture_are_waited_for(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for number, data in packets('libx264', 8)[2:]:
            place = {'stamp_ns': START + number}
            bag.write_compressed('/a/image/compressed', data, 'h264', **place)
            bag.write_frame('/b/image_raw', frame(number, START + number))
        torn = Channel(topic='/c/image/compressed', msgtype='sensor_msgs/msg/CompressedImage')
        bag.write(Message(channel=torn, received_ns=START, data=b'\0\1\0\0'))
        qos = reliable_qos(latched=True)
        for number in range(7):
            tf = Channel(topic='/tf_static', msgtype='tf2_msgs/msg/TFMessage', qos=(qos,))
            bag.write(Message(channel=tf, received_ns=START + number, data=b'\0\1\0\0'))
    source = ReplaySource(tmp_path / 'bag', also=['/tf_static'])
    assert source.latched == {'/tf_static': 7}
    found: dict[str, list[int]] = {}
    for _, topic, content in source.messages(print):
        if topic != '/tf_static' and (stamp := source.picture_stamp(content)) is not None:
            found.setdefault(topic, []).append(stamp - START)
    # from the key frame on; what is torn is sent, too
    assert found.pop('/c/image/compressed') == [-START]
    assert found == {'/a/image/compressed': [5, 6, 7], '/b/image_raw': [*range(2, 8)]}


@pytest.mark.parametrize('last', ['ffmpeg', 'packets'])
def test_video_of_a_type_that_is_not_installed_is_played_as_images(tmp_path, last):
    with BagWriter(tmp_path / 'bag') as bag:
        for number, data in packets('libx264', 8)[2:]:
            write_packet(bag, f'/a/{last}', number, data, START + number)
            bag.write_value('/weather', 'rain', START + number)
    source = ReplaySource(tmp_path / 'bag', also=['/weather'])
    name = '/a' if last == 'ffmpeg' else '/a/packets'
    assert source.topics == {name: 'sensor_msgs/msg/Image', '/weather': 'std_msgs/msg/String'}
    played = [(topic, time - START) for time, topic, _ in source.messages(print)]
    assert [time for topic, time in played if topic == '/weather'] == [*range(2, 8)]
    # from the key frame on
    assert [time for topic, time in played if topic == name] == [5, 6, 7]
    parameters, _ = _inputs(RunOptions(source=str(tmp_path / 'bag')))
    assert parameters == {'image_topics': f'["{name}"]', 'transport': 'raw'}
