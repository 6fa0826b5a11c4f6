# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Class names, ids and colours."""

import json

from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy, TaxonomyError, UNLABELLED
import numpy as np
import pytest


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
