# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The command ``nightseg``: a table of verbs, each in a module that is imported when it is asked for.

A verb's module has ``main(arguments) -> int``. Errors of this package and of the file system end
as one line on stderr and exit code 2, Ctrl-C as 130; only a bug shows a traceback.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

VERBS = {
    'predict': ('nightseg_ros.cli.predict', 'label an image, a folder, a video or a bag'),
    'demo': ('nightseg_ros.cli.demo', 'a drive from day into night through real ROS 2 processes'),
    'evaluate': ('nightseg_ros.cli.evaluate', 'score labelled data sets'),
    'report': ('nightseg_ros.cli.report', 'the report of a finished evaluation, made again'),
    'bag': ('nightseg_ros.cli.bag', 'make bags, put predictions into them, check damaged ones'),
    'paint': ('nightseg_ros.cli.paint', 'labels on the points of the clouds of a bag'),
    'replay': ('nightseg_ros.cli.replay', 'play a bag, video or folder into ROS 2 topics'),
    'record': ('nightseg_ros.cli.record', 'record what the node publishes into a bag'),
    'bench': ('nightseg_ros.cli.bench', 'how fast the node is here, and where the time goes'),
    'info': ('nightseg_ros.cli.info', 'versions, devices, backends and weights'),
    'train': (
        'nightseg_ros.cli.train',
        'make weights, and the labels to make them with',
    ),
    'synthesize': (
        'nightseg_ros.cli.synthesize',
        'turn labelled day images into synthetic night',
    ),
    'sweep': ('nightseg_ros.cli.sweep', 'how much synthetic night helps, with error bands'),
    'export': ('nightseg_ros.cli.export', 'weights as ONNX with a card, checked against torch'),
    'quantize': ('nightseg_ros.cli.quantize', 'weights as int8 graphs, if those do as well'),
    'import': ('nightseg_ros.cli.import_weights', 'checkpoints of transformers as weights'),
    'translate': (
        'nightseg_ros.cli.translate',
        'turn frames into the other light with a generator, and judge it',
    ),
    'calibrate': (
        'nightseg_ros.cli.calibrate',
        'teach weights how sure they may be: confidence and reliability',
    ),
    'publish': ('nightseg_ros.cli.publish', 'ship trained weights with their scores and hash'),
    'data': ('nightseg_ros.cli.data', 'check data sets; take pictures out of recordings'),
    'render': ('nightseg_ros.cli.render', 'render a data set of streets with exact labels'),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a name may hold bytes that are no UTF-8, and the terminal may not know it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ('-h', '--help'):
        print(_help())
        return 0 if given else 2
    if given[0] == '--version':
        from nightseg_ros import __version__

        print(f'nightseg {__version__}')
        return 0
    verb = given[0]
    if verb not in VERBS:
        print(f"nightseg: there is no verb '{verb}'; verbs: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        run = importlib.import_module(VERBS[verb][0]).main
        return int(run(given[1:]))
    except KeyboardInterrupt:
        print(f'nightseg {verb}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of a pipe (head, less) has left; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if not _expected(error):
            raise
        print(f'nightseg {verb}: {error}', file=sys.stderr)
        return 2


def _expected(error: Exception) -> bool:
    """Tell errors that speak to the user from bugs, without importing what raises them."""
    ours = type(error).__module__.partition('.')[0] == 'nightseg_ros'
    return ours or isinstance(error, OSError)


def _help() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f'  {verb:{width}}{text}' for verb, (_, text) in VERBS.items()]
    return '\n'.join(
        [
            'usage: nightseg VERB [options]',
            '',
            'Night-robust semantic segmentation of vehicle cameras.',
            '',
            *lines,
            '',
            'nightseg VERB --help lists the options of a verb.',
        ]
    )


if __name__ == '__main__':
    sys.exit(main())
