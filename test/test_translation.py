# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Judging translations: KID, semantic agreement, the verb, and the baseline without learning."""

import json

import cv2
from nightseg_ros.cli.main import main
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.agreement import features, kid, Translations
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.taxonomy import CITYSCAPES19
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import write_segmenter, write_translator


def picture(seed: int, size: tuple[int, int] = (96, 160)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope='module')
def judge(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp('judge') / 'judge.safetensors')


# -- KID -------------------------------------------------------------------------------------


def test_kid_is_the_formula_of_the_paper():
    """Equation 4 of Binkowski et al. by loops, the mean over two subsets."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 6, 5))
    scale = np.concatenate([one, other]).std(0)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((np.dot(a / scale, b / scale) / 5 + 1) ** 3)

    drawn, wanted = np.random.default_rng(0), []
    for _ in range(2):
        x, y = (side[drawn.choice(6, 4, replace=False)] for side in (one, other))
        within = sum(
            kernel(z[i], z[j]) for z in (x, y) for i in range(4) for j in range(4) if i != j
        )
        across = sum(kernel(a, b) for a in x for b in y)
        wanted.append(within / 12 - 2 * across / 16)
    assert kid(one, other, subsets=2) == pytest.approx((np.mean(wanted), np.std(wanted)), rel=1e-6)
    with pytest.raises(DataError, match='at least 4 .* 3 and 6'):
        kid(one[:3], other)


# -- agreement -------------------------------------------------------------------------------


def test_a_picture_agrees_with_itself_and_not_with_another(judge):
    network = FrozenSegmenter(load_weights(judge))
    found = Translations(network, network, 160)
    for seed in range(4):
        found.add(picture(seed), picture(seed))
    entry = found.to_dict([features(network, picture(seed), 160) for seed in range(4)])
    assert entry['pictures'] == 4
    assert entry['agreement'] == entry['agreement_miou'] == 1.0
    # the same four pictures on both sides: what is left is the estimate's own spread
    assert entry['kid'] == entry['kid_source']
    other = Translations(network, network, 160)
    other.add(picture(0), picture(1))
    worse = other.to_dict()
    assert worse['agreement'] < 0.9 and worse['kid'] is None


def test_a_second_judge_looks_at_the_results_only(judge, tmp_path):
    first = FrozenSegmenter(load_weights(judge))
    second = FrozenSegmenter(load_weights(write_segmenter(tmp_path / 'b.safetensors', seed=5)))
    found = Translations(first, second, 160)
    found.add(picture(0), picture(0))
    assert found.to_dict()['agreement'] < 1.0
    # both sides of a distance are by the second one's encoder
    np.testing.assert_array_equal(found.sources[0], found.results[0])
    np.testing.assert_array_equal(found.results[0], features(second, picture(0), 160))


def test_what_cannot_be_compared_is_refused(judge, tmp_path):
    first = FrozenSegmenter(load_weights(judge))
    path = write_segmenter(tmp_path / 'c.safetensors', taxonomy=CITYSCAPES19)
    with pytest.raises(DataError, match='one taxonomy'):
        Translations(first, FrozenSegmenter(load_weights(path)), 160)
    found = Translations(first, first, 160)
    with pytest.raises(DataError, match='sizes must agree'):
        found.add(picture(0), picture(0, (48, 80)))


# -- the verb --------------------------------------------------------------------------------


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / 'frames'
    folder.mkdir()
    for seed in range(5):
        size = (96, 160) if seed else (120, 90)
        cv2.imwrite(str(folder / f'a_{seed}.png'), picture(seed, size))
    return folder


def test_translate_writes_pictures_sheet_and_figures(frames, judge, tmp_path, monkeypatch):
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    generator = write_translator(tmp_path / 'generator.safetensors')
    (frames / 'a_broken.png').write_bytes(b'no picture')
    out = tmp_path / 'out'
    arguments = [
        'translate', str(frames), '--weights', str(generator), '--out', str(out),
        '--judge', str(judge), '--backend', 'torch', '--long-side', '160',
    ]  # fmt: skip
    assert main([*arguments]) == 1  # the broken one
    names = sorted(path.name for path in (out / 'images').iterdir())
    assert names == [f'a_{seed}.jpg' for seed in range(5)]
    assert cv2.imread(str(out / 'images' / 'a_0.jpg')).shape == (120, 90, 3)
    assert cv2.imread(str(out / 'contact_sheet.jpg')) is not None
    found = json.loads((out / 'metrics.json').read_text())
    assert 0 <= found['agreement'] <= 1 and found['kid'] is None and found['pictures'] == 5

    (frames / 'a_broken.png').unlink()
    assert main([*arguments, '--real', f'images:{frames}']) == 0
    found = json.loads((out / 'metrics.json').read_text())
    assert found['kid']['std'] >= 0 and found['real'] == ['frames']


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--real', 'images:x'], '--judge'),
        (['--long-side', '3'], '64 to 4096'),
        (['--style', 'moon'], "know no camera 'moon'"),
    ],
)
def test_translate_says_what_it_wants(frames, tmp_path, capsys, flags, words):
    generator = write_translator(tmp_path / 'generator.safetensors')
    arguments = ['translate', str(frames), '--weights', str(generator), '--out', str(tmp_path)]
    assert main([*arguments, *flags]) == 2
    assert words in capsys.readouterr().err
