# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg evaluate``: scores of bags, videos, folders and data sets; and ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import sys
from typing import Annotated, Any, Literal

from nightseg_ros.cli.options import parse, PipelineOptions, print_table, Progress, refuse
from nightseg_ros.config import ConfigError, from_mapping, Limited, Natural, Positive
import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions(Limited, PipelineOptions):
    """
    Score every frame of SOURCE… or of data sets and write OUT/metrics.json and a report.

    Frames go through the node's pipeline one by one in the order of their stamps; none is
    dropped. The same command goes on with an evaluation that was interrupted. docs/metrics.md
    says what every number means. Exit code 1: something could not be read.
    """

    source: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Bags, videos, folders of pictures."""
    out: Path
    """Folder to write; files of an earlier evaluation are replaced."""
    dataset: tuple[str, ...] = ()
    """Data sets as ADAPTER:ROOT[:SPLIT], such as camvid:ROOT:SPLIT or folder:ROOT."""
    sources: tuple[str, ...] = ()
    """Names of the cameras or places within data sets, by which scores are split, as PATTERN=NAME
    of the pictures' names: 'front_*=front' '*=rear'. The first that fits counts."""
    labels: tuple[str, ...] = ()
    """Labels of the sources: a folder of PNGs of ids, named as the frames or by their stamps in
    ns, or a topic of the bags (mono8, or PNG in CompressedImage). One for all, in which sources
    that would share labels have folders of their names, or one for each --topic. Without them
    the report shows what needs none."""
    topic: tuple[str, ...] = ()
    """Image topics of the bags, a camera each; without them every camera there is."""
    rate: float | None = None
    """Frames a second of a folder (makes it a drive), or of a video instead of its own."""
    stamps: Path | None = None
    """File of stamps of a folder or a video, instead of a rate."""
    light: str = ''
    """How light it really was, for the router's scores: a state, a CSV file of stamp,state lines,
    or a topic of std_msgs/String."""
    name: str = ''
    """Name of the sources together; without it that of the only one, or 'recordings'."""
    compare: tuple[str, ...] = ()
    """Configurations KEY=VALUE[,KEY=VALUE] to score side by side over the same frames, such as
    route=day route=night route=auto; differences are to the first. Keys are the node's
    parameters."""
    classes: tuple[str, ...] = ()
    """Also give the mIoU over these classes."""
    bootstrap: Literal['auto', 'frames', 'blocks', 'sources'] = 'auto'
    """What intervals draw: frames, blocks of neighbouring frames, or whole sources; 'auto' draws
    blocks of drives and frames of anything else."""
    block_s: float = 5.0
    """Length of a block in seconds."""
    resamples: int = 1000
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""
    save_labels: bool = False
    """Write every mask to OUT/labels."""
    workers: Positive = 1
    """Processes on this machine; the scores are those of one."""
    ray: str = ''
    """Address of a Ray cluster ('auto' finds the one of this machine), or 'local' for --workers
    Ray processes here."""
    threads: int = 0
    """CPU threads of a network; 0 shares the cores out among --workers and --streams."""
    streams: Natural = 0
    """Frames in the networks at a time: 0 takes what this machine is fastest with, 1 labels them
    one by one as a node does, for its latencies. Labels are the same."""
    restart: bool = False
    """Drop what an interrupted evaluation left in OUT."""
    report: bool = True
    """Write report.html."""


def evaluate(arguments: Sequence[str]) -> int:
    options = parse(EvaluateOptions, 'evaluate', arguments)
    if not options.source and not options.dataset:
        raise ConfigError('name a bag, a video or a folder to evaluate, or a --dataset')
    if not options.source:
        refuse(options, 'data sets', 'labels', 'topic', 'rate', 'stamps', 'light', 'name')
    if not options.dataset:
        refuse(options, 'bags, videos and folders', 'sources')
    if options.streams > 1 and (options.workers > 1 or options.ray):
        raise ConfigError('--streams is of one process; leave it, or --workers and --ray, out')

    from nightseg_ros.evaluation.evaluate import check_outputs, evaluate
    from nightseg_ros.evaluation.metrics import BootstrapConfig, SegmentationScores
    from nightseg_ros.evaluation.report import write_report
    from nightseg_ros.evaluation.sources import dataset_shards, sequence_shards
    from nightseg_ros.evaluation.variants import (
        configurations,
        stream_count,
        taxonomy_of,
        Variants,
    )
    from nightseg_ros.perception.pipeline import settled

    values = {name: getattr(options, name) for name in ('block_s', 'resamples', 'seed')}
    bootstrap = from_mapping(BootstrapConfig, {'unit': options.bootstrap, **values})
    base = options.pipeline_config(threads=options.threads)
    # what cannot be right is said before anything is loaded
    members = configurations(base, options.compare)
    taxonomy = taxonomy_of(next(iter(members.values())))
    recordings = sequence_shards(
        options.source, topics=options.topic, labels=options.labels, light=options.light,
        rate=options.rate, stamps=options.stamps, name=options.name, taxonomy=taxonomy,
    )  # fmt: skip
    SegmentationScores(taxonomy, bootstrap, options.classes)
    datasets = dataset_shards(options.dataset, taxonomy, options.sources)
    if {part.set_name for part in recordings} & {part.set_name for part in datasets}:
        raise ConfigError('sources and a data set have one name; give the sources a --name')
    shards = (*recordings, *datasets)
    check_outputs(shards, options.out, save_labels=options.save_labels)
    with Progress('loading the networks', None) as progress:
        sources = {part.path: part.frames for part in recordings}
        for path, frames in sources.items():
            if frames and frames.note:
                progress.note(f'{path}: {frames.note}')
        # 'auto' means for each configuration what it means for its weights on a vehicle
        members = {name: settled(config) for name, config in members.items()}
        # with workers, the networks of this process only say what they are
        streams = 1
        if options.workers <= 1 and not options.ray:
            best = (stream_count(config, options.threads) for config in members.values())
            streams = options.streams or min(best)
        variants = Variants(members, streams=streams, log=progress.note)
        counts = [part.count for part in shards]
        total = None if None in counts else sum(count or 0 for count in counts)
        result = evaluate(
            shards, variants, options.out, save_labels=options.save_labels,
            bootstrap=bootstrap, classes=options.classes,
            workers=options.workers, ray=options.ray, restart=options.restart,
            command=('nightseg', 'evaluate', *arguments), log=progress.note,
            advance=lambda done: progress.show(done, total, text='evaluating'),
        )  # fmt: skip
    if options.report:
        write_report(options.out)
    _print(result)
    print(options.out / ('report.html' if options.report else 'metrics.json'))
    return _print_problems(result)


def _print_problems(result: dict[str, Any]) -> int:
    """Print on stderr what could not be read; return the exit code."""
    lost = 0
    for name, entry in result['sets'].items():
        for source in entry['sources']:
            lost += source['failed'] + len(source['losses'])
            texts = source['losses'][:5]
            if len(source['losses']) > len(texts):
                texts.append(f'… {len(source["losses"]) - len(texts)} more in metrics.json')
            if source['labels_unused']:
                texts.append(f'labels without a frame: {source["labels_unused"]}')
            for text in texts:
                print(f'nightseg evaluate: {name}, {source["name"]}: {text}', file=sys.stderr)
    return 1 if lost else 0


def _print(result: dict[str, Any]) -> None:
    from nightseg_ros.evaluation.report import interval, number, score

    for name, run in result['runs'].items():
        if not run['labelled']:
            routes = ', '.join(f'{route} {count}' for route, count in run['routes'].items())
            print(f'{name}: {run["frames"]} frames without labels; routes: {routes or "none"}')
            continue
        entries = {'all': run['all']}
        if len(run['by_source']) > 1:
            entries |= run['by_source']
        rows = [
            [source, str(entry['frames']), score(entry, 'miou'), score(entry, 'miou9'),
             number(entry['pixel_acc'])]
            for source, entry in entries.items()
        ]  # fmt: skip
        if len(entries) > 1:
            rows.append(['mean of sources', '', '', score(run, 'mean_of_sources_miou9'), ''])
        print_table(name, ('', 'frames', 'mIoU', 'mIoU9', 'pixel acc.'), rows)
    for item in result['compare']:
        if 'miou' in item:
            gap = item['miou']
            change = f'{gap["difference"]:+.3f} {interval(gap["ci"])}'
            print(f'{item["run"]} − {item["reference"]}: mIoU {change}')


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """
    Write DIR/report.html anew from what `nightseg evaluate --out DIR` left there.

    Neither the data nor the weights nor a network connection is needed.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar='DIR')]
    """Folder of a finished evaluation."""


def report(options: ReportOptions) -> int:
    from nightseg_ros.evaluation.report import write_report

    write_report(options.folder)
    print(options.folder / 'report.html')
    return 0
