# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Strict configs: every wrong key, type or value is named."""

import dataclasses
from dataclasses import dataclass, field
import json
from typing import Literal

from nightseg_ros.cli.options import OptionError, read_config
from nightseg_ros.config import ConfigError, from_mapping, read_yaml, to_mapping
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.night_presets import NightConfig
from nightseg_ros.evaluation.metrics import BootstrapConfig
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy, TaxonomyError, UNLABELLED
from nightseg_ros.training import CalibrationConfig, SweepConfig
from nightseg_ros.training.average import AverageConfig
from nightseg_ros.training.illumination import IlluminationConfig
from nightseg_ros.training.paired import DayToNightConfig, FastTranslatorConfig
from nightseg_ros.training.segmenter import SegmenterConfig
from nightseg_ros.training.translator import DirectionConfig, TranslatorConfig
import numpy as np
import pytest


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f'share is 0 to 1, got {self.share}')


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    mode: Literal['a', 'b'] = 'a'
    size: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    flag: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_file_of_windows_is_read(tmp_path, encoding):
    (tmp_path / 'a.yaml').write_bytes('count: 3\r\nnames: [ü]\r\n'.encode(encoding))
    assert read_yaml(tmp_path / 'a.yaml') == {'count': 3, 'names': ['ü']}


def test_values_of_every_kind():
    config = from_mapping(
        Outer,
        {
            'count': 3, 'mode': 'b', 'size': [4, 5], 'names': ['x'], 'flag': True, 'limit': 2,
            'inner': {'share': 1},
        },
    )  # fmt: skip
    assert config == Outer(
        count=3, mode='b', size=(4, 5), names=('x',), flag=True, limit=2.0, inner=Inner(share=1.0)
    )
    assert from_mapping(Outer, to_mapping(config)) == config


@pytest.mark.parametrize(
    ('mapping', 'words'),
    [
        ({}, "'count' is missing"),
        ({'count': 1, 'cuont': 2}, "unknown key 'cuont'.*known keys.*count"),
        ({'count': 1.5}, "'count' must be int, got 1.5"),
        ({'count': True}, "'count' must be int"),
        ({'count': 1, 'inner': {'share': 10**400}}, "'inner.share' must be float"),
        ({'count': '1'}, "'count' must be int"),
        ({'count': 1, 'flag': 1}, "'flag' must be bool"),
        ({'count': 1, 'mode': 'c'}, "'mode' must be one of"),
        ({'count': 1, 'size': [1]}, "'size' must have 2 items"),
        ({'count': 1, 'size': 7}, "'size' must be a list"),
        ({'count': 1, 'names': ['a', 2]}, r"'names\[1\]' must be str"),
        ({'count': 1, 'inner': {'shore': 1}}, "unknown key 'inner.shore'"),
        ({'count': 1, 'inner': {'share': 2.0}}, "'inner': share is 0 to 1, got 2.0"),
        ({'count': 1, 'inner': 3}, "'inner' must be a mapping"),
    ],
)
def test_mistakes_are_named(mapping, words):
    with pytest.raises(ConfigError, match=words):
        from_mapping(Outer, mapping)


@pytest.mark.parametrize(
    ('kind', 'changes', 'words'),
    [
        (AugmentConfig, {'crop': [0, 5]}, "'crop'"),
        (AugmentConfig, {'scale': [0.0, 1.0]}, "'scale'"),
        (AugmentConfig, {'tries': 0}, "'tries'"),
        (AugmentConfig, {'long_side': -1}, "'long_side'"),
        (NightConfig, {'mixture': {'moonlight': 1.0}}, 'moonlight'),
        (NightConfig, {'mixture': {'dark': 0.0}}, 'above 0'),
        (SynthesisConfig, {'ratio': 0.5, 'count': 3}, 'give one'),
        (SynthesisConfig, {'ratio': 1.5}, 'at most 1'),
        (SynthesisConfig, {'count': 0}, 'at least 1'),
        (SynthesisConfig, {'method': 'generator'}, 'belong together'),
        (SynthesisConfig, {'quality': 0}, "'quality'"),
        (BootstrapConfig, {'block_s': 0}, 'block_s'),
        (BootstrapConfig, {'seed': -1}, 'seed'),
        (CalibrationConfig, {}, '--data'),
        (IlluminationConfig, {'steps': 0}, "'steps'"),
        (IlluminationConfig, {'batch': 1}, "'batch'"),
        (IlluminationConfig, {'data': ()}, "'data'"),
        (IlluminationConfig, {'data': ('dawn:a:b',)}, "'data'"),
        (IlluminationConfig, {'data': ('day:a',)}, "'data'"),
        (AverageConfig, {'weights': ['one']}, 'two files'),
        (AverageConfig, {'weights': ['a', 'b'], 'long_side': 16}, "'long_side'"),
        (SegmenterConfig, {'long_side': 16}, "'long_side' must be at least 32"),
        (SegmenterConfig, {'rate': -1.0}, "'rate' must be at least 0"),
        (SegmenterConfig, {'balance': 1.5}, "'balance' must be 0 to 1, got 1.5"),
        (SegmenterConfig, {'workers': -1}, "'workers' must be at least 0"),
        (SegmenterConfig, {'norm_momentum': 0.0}, "'norm_momentum' is above 0"),
        (SegmenterConfig, {'augment': {'crop': [30, 32]}}, 'multiples of 32'),
        (SegmenterConfig, {'taxonomy': 'mine'}, "no taxonomy 'mine'"),
        (SegmenterConfig, {'network': 'erf_pspnet', 'batch': 1}, "'batch' must be at least 2"),
        (DayToNightConfig, {'augment': {'long_side': 0}}, "'augment.long_side' must"),
        (TranslatorConfig, {'crop': 40, 'segmenter': 'z'}, 'multiple of 32'),
        (TranslatorConfig, {'night_segmenter': 'night'}, 'night_segmenter'),
        (TranslatorConfig, {'long_side': 16}, "'long_side' must be at least 32"),
        (TranslatorConfig, {'day_to_night': {'gan': -1.0}}, "'gan' must be at least 0"),
        (FastTranslatorConfig, {'loss': {'adversarial': 0.1}}, 'unpaired'),
        (FastTranslatorConfig, {'loss': {'adversarial': -0.1}}, 'at least 0'),
        (FastTranslatorConfig, {'augment': {'unlit': 20.0}}, "'augment.unlit' changes no pair"),
        (FastTranslatorConfig, {'augment': {'crop': [30, 32]}}, 'multiples of 32'),
        (SweepConfig, {'ratios': [0.0, 1.2]}, '0 to 1'),
        (SweepConfig, {'ratios': [0.5, 0.5]}, 'twice'),
        (SweepConfig, {'seeds': []}, "'seeds' must name at least one"),
        (SweepConfig, {'shard': '3/2'}, "'shard' must be I/N"),
        (SweepConfig, {'shard': 'one'}, "'shard' must be I/N"),
    ],
)
def test_settings_that_cannot_work_are_named(kind, changes, words):
    with pytest.raises(ConfigError, match=words):
        from_mapping(kind, changes, missing=('what has to be given',))


@pytest.mark.parametrize(
    ('kind', 'text', 'flags', 'without', 'words'),
    [
        (CalibrationConfig, 'frames: 20', '--data x', '--weights w', '--faults-on'),
        (FastTranslatorConfig, 'loss: {adversarial: 2.0}', '--unpaired x',
         '--data d --segmenter s --out o', 'needs real nights'),
        (AverageConfig, 'long_side: 64', '--weights a b', '--weights a --out o', 'two files'),
        (IlluminationConfig, 'steps: 3', '--data day:a:b', '--data x --out o', "'data': 'x'"),
        (SweepConfig, 'ratios: []', '--ratios 0.5', '--data d --select s --out o', "'ratios'"),
        (SegmenterConfig, 'augment: {flip: 2.0}', '--augment.flip 0.5', '--data d --out o',
         "'flip' must be 0 to 1"),
    ],
)  # fmt: skip
def test_file_and_flags_are_checked_together(kind, text, flags, without, words, tmp_path):
    (tmp_path / 'a.yaml').write_text(text)
    given = ['--config', str(tmp_path / 'a.yaml'), *without.split()]
    with pytest.raises(OptionError, match=words):
        read_config(kind, 'verb', given)
    assert isinstance(read_config(kind, 'verb', [*given, *flags.split()]), kind)


def test_what_a_nested_mapping_leaves_out_is_the_recipes_own():
    given = {'data': ['x'], 'segmenter': 's', 'out': 'o', 'augment': {'crop': [64, 96]}}
    augment = from_mapping(FastTranslatorConfig, given | {'unpaired': ['y']}).augment
    assert (augment.crop, augment.night_share) == ((64, 96), 0.9)
    given = {'data': ['x'], 'out': 'o', 'night_to_day': {'gan': 0.5}}
    direction = from_mapping(TranslatorConfig, given).night_to_day
    own = TranslatorConfig(data=('x',), out='o').night_to_day
    assert direction == dataclasses.replace(own, gan=0.5) and own.cycle != DirectionConfig().cycle


@pytest.mark.parametrize('taxonomy', TAXONOMIES.values(), ids=TAXONOMIES)
def test_round_trip_and_palette(taxonomy):
    assert Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict()))) == taxonomy
    palette = taxonomy.palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    for name, color in zip(taxonomy.classes, taxonomy.colors):
        assert tuple(palette[taxonomy.id_of(name)]) == color
    assert not palette[UNLABELLED].any()
    assert len({tuple(c) for c in taxonomy.colors}) == len(taxonomy)


def test_camvid_ids_are_the_data_sets():
    names = 'sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist'
    assert list(TAXONOMIES['camvid11'].classes) == names.split(',')
    with pytest.raises(TaxonomyError, match='bicyclist'):
        TAXONOMIES['camvid11'].id_of('tram')


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'classes': ['a', 'a']}, 'twice'),
        ({'colors': [[0, 0, 0]]}, 'colours'),
        ({'colors': [[0, 0, 0], [0, 0, 256]]}, 'RGB'),
        ({'colors': [[0, 0, 0], [0, 0]]}, 'RGB'),
        ({'classes': [], 'colors': []}, '0 classes'),
        ({'classes': None}, 'needs name'),
    ],
)
def test_contradictions_are_refused(change, word):
    good = {'name': 't', 'classes': ['a', 'b'], 'colors': [[0, 0, 0], [1, 1, 1]]}
    with pytest.raises(TaxonomyError, match=word):
        Taxonomy.from_dict({**good, **change})
