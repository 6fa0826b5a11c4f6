# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg import``: checkpoints of other projects become weights of this one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nightseg_ros.cli.options import parse

KINDS = {'segformer': 'a SegFormer checkpoint as transformers saves it (a local folder)'}


@dataclass(frozen=True, kw_only=True, slots=True)
class SegformerOptions:
    """Turn a SegFormer checkpoint of transformers into a weights file."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder with config.json and model.safetensors."""
    taxonomy: str
    """What its classes mean, in order: a taxonomy by name, such as cityscapes19."""
    out: Path
    """File to write."""
    license: str = "unknown: see the checkpoint's own terms"
    """What the checkpoint may be used for; the node says it when it loads the file."""
    data: str = ''
    """What the checkpoint was trained on, in words."""
    long_side: int = 1024
    """Long side in pixels at which the weights will be used."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    if not arguments or arguments[0] in ('-h', '--help'):
        kinds = '\n'.join(f'  {name}  {text}' for name, text in KINDS.items())
        print(f'usage: nightseg import KIND FOLDER --taxonomy NAME --out FILE\n\n{kinds}')
        return 0 if arguments else 2
    kind, *rest = arguments
    if kind not in KINDS:
        print(f"nightseg import: no kind '{kind}'; kinds: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    options = parse(SegformerOptions, f'import {kind}', rest)

    from nightseg_ros.config import ConfigError
    from nightseg_ros.networks import build_from
    from nightseg_ros.networks.segformer_checkpoint import read_segformer
    from nightseg_ros.outputs import check_output
    from nightseg_ros.taxonomy import TAXONOMIES
    from nightseg_ros.weights import Weights, WeightsMetadata, save_weights

    if options.taxonomy not in TAXONOMIES:
        raise ConfigError(f"no taxonomy '{options.taxonomy}'; there are {', '.join(TAXONOMIES)}")
    taxonomy = TAXONOMIES[options.taxonomy]
    checkpoint = read_segformer(options.folder)
    _compare(checkpoint.labels, taxonomy.classes, options.taxonomy)
    r, g, b = checkpoint.mean
    red, green, blue = checkpoint.std
    try:
        metadata = WeightsMetadata(
            network='segformer',
            arch=checkpoint.arch,
            taxonomy=taxonomy.to_dict(),
            mean=(r, g, b),
            std=(red, green, blue),
            long_side=options.long_side,
            data=options.data,
            license=options.license,
            training={'imported': options.folder.name},
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    # a checkpoint whose tensors do not fit is refused here, not in the node
    build_from(
        Weights(path=options.folder, sha256='', metadata=metadata, tensors=checkpoint.tensors)
    )
    check_output(options.out, 'weights', Path.is_file, inputs=[options.folder])
    sha256 = save_weights(options.out, checkpoint.tensors, metadata)
    print(f"'{options.out}': {options.out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}")
    return 0


def _compare(labels: Sequence[str], classes: Sequence[str], taxonomy: str) -> None:
    """Refuse a checkpoint whose classes are others; nameless ones are taken on trust."""
    from nightseg_ros.config import ConfigError

    if len(labels) != len(classes):
        raise ConfigError(f"the checkpoint has {len(labels)} classes, '{taxonomy}' {len(classes)}")
    for index, (label, name) in enumerate(zip(labels, classes)):
        plain = label.lower().replace('_', ' ').replace('-', ' ').strip()
        if label != f'LABEL_{index}' and plain.replace(' ', '') != name.replace(' ', ''):
            raise ConfigError(
                f"class {index} is '{label}' in the checkpoint, '{name}' in '{taxonomy}'"
            )
