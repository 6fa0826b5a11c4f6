# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg import onnx`` and ``segformer``: networks from elsewhere as weights of a route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import io
import math
from pathlib import Path
from typing import Annotated, Any, Literal, TYPE_CHECKING
import warnings

from nightseg_ros.config import ConfigError, from_mapping, read_yaml
from nightseg_ros.outputs import check_output
import tyro

if TYPE_CHECKING:
    from nightseg_ros.taxonomy import Taxonomy
    import onnx

#: ImageNet's.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Long side of the pictures where a model takes any and says nothing of it.
LONG_SIDE = 480


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """Flags of both verbs."""

    out: Path
    """Weights file to write, for weights.day, weights.night or weights.translator."""
    taxonomy: Literal['camvid11', 'cityscapes19', 'comma10k'] = 'camvid11'
    """What a labels file of the form 'own name: class' translates to; all routes need the same."""
    terms: Annotated[str, tyro.conf.arg(name='license')] = ''
    """What its training data allows; the node logs it when it loads the file."""
    data: str = ''
    """What it was trained on, in words."""
    labels: Path | None = None
    """YAML: 'classes:' and a list in the order of the ids, or in that order 'own name: class' with
    a class of --taxonomy. Without it an ONNX model is a generator, and a SegFormer has the names
    in its config.json."""
    size: tuple[int, int] | None = None
    """Rows and columns of the images that it was trained for; fixed where an ONNX model says
    so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxOptions(ImportOptions):
    """
    Turn MODEL, an ONNX segmenter or night-to-day generator, into weights of a route.

    It takes one float image, [B, 3, H, W] or [B, H, W, 3], of one size or of any. A segmenter
    gives logits, a softmax or ids; pre- and post-processing become part of the graph. The exit
    code is 1 where OpenVINO and onnxruntime differ on more than 0.5 % of the pixels.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """ONNX file."""
    mean: tuple[float, float, float] = MEAN
    """Mean of its input where pixels are 0 to 1, in --order; 0 0 0 for one that takes 0 to 255."""
    std: tuple[float, float, float] = STD
    """Standard deviation; for one that takes 0 to 255: 0.00392157 three times."""
    order: Literal['rgb', 'bgr'] = 'rgb'
    """Order of its channels."""
    output_range: tuple[float, float] = (-1.0, 1.0)
    """Black and white in a generator's output."""


def import_onnx(options: OnnxOptions) -> int:
    import onnx

    try:
        model = onnx.load(options.model)
        onnx.checker.check_model(model)
    except OSError:
        raise
    except Exception as error:  # protobuf's, onnx's checker's
        raise ConfigError(f"'{options.model}' is no ONNX model: {error}") from error
    return _write(
        model, options, None, mean=options.mean, std=options.std, order=options.order,
        output_range=options.output_range, inputs=[options.model],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SegformerOptions(ImportOptions):
    """Turn FOLDER, a SegFormer as transformers saves it, into weights of a route."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder with config.json, model.safetensors and preprocessor_config.json."""


def import_segformer(options: SegformerOptions) -> int:
    import onnx
    import torch
    from transformers import SegformerForSemanticSegmentation

    kind = read_yaml(options.folder / 'config.json').get('model_type')
    if kind != 'segformer':
        raise ConfigError(f"'{options.folder}' holds a {kind}; a segformer is wanted")
    found: Any = SegformerForSemanticSegmentation.from_pretrained(
        options.folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    network, loaded = found
    if missing := sorted(loaded['missing_keys']):
        # they would be random
        raise ConfigError(
            f"'{options.folder}' lacks {len(missing)} tensors of a segmenter, such as "
            f"'{missing[0]}': take one that was trained for segmentation, not an encoder"
        )
    network.eval()
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        # as in runtime.export: the present exporter takes ten times as long
        torch.onnx.export(
            network, (torch.zeros(1, 3, 128, 160),), stream,  # type: ignore[arg-type]
            dynamo=False, opset_version=18, input_names=['pixels'], output_names=['logits'],
            dynamic_axes={'pixels': {0: 'batch', 2: 'rows', 3: 'columns'}},
        )  # fmt: skip
    processor = options.folder / 'preprocessor_config.json'
    settings = read_yaml(processor) if processor.is_file() else {}  # JSON is YAML
    if not settings:
        print(f"there is no '{processor}': mean and deviation are taken to be ImageNet's")
    if not settings.get('do_normalize', True):
        settings |= {'image_mean': (0.0, 0.0, 0.0), 'image_std': (1.0, 1.0, 1.0)}
    size = settings.get('size', {}) if settings.get('do_resize', True) else {}
    sides = size.values() if isinstance(size, dict) else (size,)
    classes = [network.config.id2label[index] for index in range(network.config.num_labels)]
    return _write(
        onnx.load_from_string(stream.getvalue()), options, {'classes': classes},
        mean=settings.get('image_mean', MEAN), std=settings.get('image_std', STD),
        long_side=max(sides, default=LONG_SIDE),
        inputs=[*options.folder.glob('*.json'), *options.folder.glob('model*.safetensors')],
    )  # fmt: skip


def _write(
    model: onnx.ModelProto, options: ImportOptions, labels: dict[str, Any] | None, *,
    mean: Sequence[float], std: Sequence[float], inputs: Sequence[Path],
    long_side: int = LONG_SIDE, output_range: tuple[float, float] = (-1.0, 1.0),
    **preprocessing: Any,
) -> int:  # fmt: skip
    """Write the weights, print their layout, and compare the runtimes on a street."""
    from nightseg_ros.evaluation.agreement import agreement, OTHERS
    from nightseg_ros.runtime.backend import MIN_AGREEMENT
    from nightseg_ros.runtime.backends import available_backends
    from nightseg_ros.runtime.imported import import_model
    from nightseg_ros.simulation.drive import render
    from nightseg_ros.simulation.street import Street
    from nightseg_ros.weights import IMPORTED, load_weights, WeightsMetadata

    inputs = [*inputs, *filter(None, [options.labels])]
    check_output(options.out, 'weights', inputs=inputs)
    if options.size and min(options.size) < 1:
        raise ConfigError(f'--size is rows and columns above 0, got {options.size}')
    black, white = output_range
    if not all(map(math.isfinite, (*mean, *std, white - black))) or black == white:
        raise ConfigError(
            'mean, standard deviation and output range are finite, and black is not white, got '
            f'{mean}, {std} and {output_range}'
        )
    if options.labels is not None:
        labels = read_yaml(options.labels)
    # without any it is a generator
    taxonomy, table = (None, []) if labels is None else _classes(labels, options)
    values = {
        'network': IMPORTED, 'task': 'segment' if taxonomy else 'translate',
        'taxonomy': taxonomy.to_dict() if taxonomy else None,
        'mean': mean, 'std': std, 'long_side': long_side, 'license': options.terms,
        'data': options.data,
    }  # fmt: skip
    layout = import_model(
        model, options.out, from_mapping(WeightsMetadata, values), table=table, size=options.size,
        output_range=output_range, **preprocessing,
    )  # fmt: skip
    channels = 'channels last' if layout.channels_last else 'channels first'
    sizes = '{}×{}'.format(*layout.size) if layout.size else 'any size'
    print(f"'{options.out}': {layout.output} from pictures of {sizes}, {channels}")
    if layout.output == 'ids':
        print('it gives no probabilities: confidence and reliability are 1 everywhere')
    street = render(Street(1, 'demo'), 9.0, 'night', seed=0).image
    present = available_backends()
    first, *others = [name for name in OTHERS if present[name]]
    shares = agreement(load_weights(options.out), [street], print, others, reference=first)
    for name, share in shares.items():
        print(f'{first} and {name} give the same on {share:.2%} of the pixels of a street')
    return int(any(share < MIN_AGREEMENT for share in shares.values()))


def _classes(labels: dict[str, Any], options: ImportOptions) -> tuple[Taxonomy, list[int]]:
    """Return the taxonomy of the masks, and the id there of each id of the network."""
    import colorsys
    import hashlib

    from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy

    if 'classes' not in labels:
        taxonomy = TAXONOMIES[options.taxonomy]
        return taxonomy, [taxonomy.id_of(str(name)) for name in labels.values()]
    if not isinstance(labels['classes'], (list, tuple)):
        raise ConfigError(f"'classes' is a list of names by id, got {labels['classes']!r}")
    classes = tuple(str(name) for name in labels['classes'])
    ids = list(range(len(classes)))
    for taxonomy in TAXONOMIES.values():
        if taxonomy.classes == classes:
            return taxonomy, ids
    hues = [colorsys.hsv_to_rgb(0.618 * k % 1, 0.7, 0.9) for k in ids]
    colors = [[round(255 * channel) for channel in hue] for hue in hues]
    # two networks of the same classes may share a vehicle
    name = f'own-{hashlib.sha256(chr(10).join(classes).encode()).hexdigest()[:8]}'
    values = {'name': name, 'colors': colors, **labels, 'classes': classes}
    return Taxonomy.from_dict(values), ids
