# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The confidence is calibrated, and a frame in which nothing can be seen is told."""

import dataclasses
from pathlib import Path
import subprocess
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.cli.main import main
from nightseg_ros.data import photometric
from nightseg_ros.data.augment import distort, PhotometricConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.evaluation.metrics import BootstrapConfig, ranks, selective, spearman
from nightseg_ros.node.parameters import BY_NAME
from nightseg_ros.outputs import OutputError
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.graph import graph_of, ReliabilityHead
from nightseg_ros.simulation.drive import render
from nightseg_ros.simulation.street import Street
from nightseg_ros.taxonomy import CAMVID11, COMMA10K
from nightseg_ros.training import CalibrationConfig
from nightseg_ros.training.average import average_weights, AverageConfig
from nightseg_ros.training.calibrate import (
    calibrate,
    FAULTS,
    fit_logistic,
    fit_temperature,
    predict,
    stack,
)
from nightseg_ros.weights import (
    has_reliability,
    list_weights,
    load_weights,
    network_tensors,
    RELIABILITY,
    save_weights,
    WeightsError,
)
import numpy as np
from out_of_distribution import CORRUPTIONS
import pytest
from tiny_data import imwrite, silent, write_streets
from tiny_weights import write_illumination, write_segmenter
import torch

#: Reliability below which the node warns, unless told otherwise.
LEAST = BY_NAME['min_reliability'].default


def _pixels(temperature: float, count: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels whose truth is drawn from the softmax of their logits over a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (count, 5)).astype(np.float32)
    p = np.exp(logits / temperature)
    p /= p.sum(1, keepdims=True)
    truth = (p.cumsum(1) < rng.random((count, 1))).sum(1).clip(0, 4).astype(np.uint8)
    return logits, truth


@pytest.mark.parametrize('temperature', [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_and_makes_the_confidence_honest(temperature):
    found = fit_temperature([_pixels(temperature)])
    assert found == pytest.approx(temperature, rel=0.06)
    logits, truth = _pixels(temperature, seed=1)
    confidence = 1 / np.exp((logits - logits.max(1, keepdims=True)) / found).sum(1)
    right = (logits.argmax(1) == truth).mean()
    assert confidence.mean() == pytest.approx(right, abs=0.03)


def test_every_place_weighs_the_same_whatever_its_frames():
    one, other = _pixels(1.0), _pixels(4.0)
    longer = tuple(np.concatenate([part, part]) for part in one)
    both = fit_temperature([one, other])
    assert 1.0 < both < 4.0 and fit_temperature([longer, other]) == pytest.approx(both, rel=1e-3)
    with pytest.raises(DataError, match='no labelled pixel'):
        fit_temperature([(one[0][:0], one[1][:0])])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_more_of_a_feature_never_means_more_reliability(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (40, 3))
    weight, bias = fit_logistic(features, rng.random(40))
    assert (weight >= 0).all() and np.isfinite(bias)


def test_the_logistic_function_is_found():
    features = np.random.default_rng(0).normal(0, 1, (50_000, 3))
    share = 1 / (1 + np.exp(-(1.5 - features @ np.array([2.0, 0.0, 0.5]))))
    weight, bias = fit_logistic(features, share)
    assert weight == pytest.approx([2.0, 0.0, 0.5], abs=0.05)
    assert bias == pytest.approx(1.5, abs=0.05)
    # one that no frame tells of keeps its prior weight
    weight, _ = fit_logistic(np.zeros((10, 2)), np.full(10, 0.9))
    assert weight == pytest.approx([0.1, 0.1])


# -- whether a score is worth anything ---------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=30, unique=True))
def test_rank_correlation_goes_by_order_alone(values):
    array = np.array(values)
    assert spearman(array, ranks(array) ** 3) == pytest.approx(1)
    assert spearman(array, -ranks(array)) == pytest.approx(-1)
    assert np.isnan(spearman(array, np.ones(len(array))))
    # 1 - 6 Σd² / n(n² - 1) does not hold with ties: Pearson's of the ranks does
    assert ranks([3, 1, 3, 2]).tolist() == [3.5, 1, 3.5, 2]
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486833)


def test_scores_of_an_evaluation():
    rng, config = np.random.default_rng(0), BootstrapConfig()
    accuracy = rng.random(60)
    found = selective(accuracy + rng.normal(0, 0.1, 60), accuracy, np.arange(60) // 3, config)
    low, high = found['spearman_ci']
    assert 0.7 < low < found['spearman'] < high < 1
    assert found['risk']['0.25'] < found['risk']['0.5'] < found['risk']['1']
    assert found['risk']['1'] == pytest.approx(1 - accuracy.mean(), abs=1e-4)
    assert set(selective(*np.zeros((2, 0)), np.zeros(0, int), config).values()) == {None}


@pytest.fixture(scope='module')
def street():
    return render(Street(1, 'demo'), 10.0, 'day', seed=1, size=(160, 96)).image


@pytest.mark.parametrize('name', photometric.CORRUPTIONS)
@pytest.mark.parametrize('size', [(96, 160), (33, 65)])
def test_faults_change_a_picture_of_any_shape(name, size, street):
    picture = np.ascontiguousarray(street[: size[0], : size[1]])
    before = picture.copy()
    for strength in (0.1, 1.0):
        out = photometric.CORRUPTIONS[name](picture, strength, np.random.default_rng(3))
        assert out.shape == picture.shape and out.dtype == np.uint8
        assert (out != picture).any() and (picture == before).all()


# -- weights ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def streets(tmp_path_factory):
    """Two places with labelled pictures."""
    root = tmp_path_factory.mktemp('streets')
    return [write_streets(root / name, cameras=name) for name in 'ab']


@pytest.fixture(scope='module')
def calibrated(streets, tmp_path_factory):
    folder = tmp_path_factory.mktemp('calibrated')
    path = write_segmenter(folder / 'day.safetensors')
    list_weights(path)
    frames = ['--data', *streets, '--faults-on', streets[0], '--good', streets[1]]
    assert main(['calibrate', '--weights', str(path), *frames]) == 0
    return path


def test_weights_keep_their_network_and_say_what_was_fitted(calibrated, tmp_path):
    before = load_weights(write_segmenter(tmp_path / 'day.safetensors'))
    after = load_weights(calibrated)
    assert has_reliability(after) and not has_reliability(before)
    assert after.metadata.temperature != 1.0
    about = after.metadata.training['calibration']
    assert set(about['temperature']['places']) == {'a', 'b'}
    assert about['reliability']['good_frames'] == 8 * 3  # each through two other cameras as well
    for name, tensor in network_tensors(after.tensors).items():
        assert torch.equal(tensor, before.tensors[name]), name


def test_a_camera_of_another_tone_is_not_taken_for_a_blind_one(streets, tmp_path):
    other = [
        distort(read_image(sample.image), np.random.default_rng(seed), PhotometricConfig())
        for sample in open_dataset(streets[0])
        for seed in range(8)
    ]
    found = []
    for cameras in (0, 2):
        path = str(write_segmenter(tmp_path / f'{cameras}.safetensors'))
        settings = {'faults_on': (streets[0],), 'good': (streets[1],), 'cameras': cameras}
        calibrate(CalibrationConfig(weights=path, **settings), silent)
        head = ReliabilityHead.of(load_weights(path))
        graph = graph_of(load_weights(path))
        seen = stack([predict(graph, image, 96)[0] for image in other])
        # distances that count, in standard deviations of good frames
        found.append(float(head.scaled(head.features(seen))[:, 1:].mean()))
    assert found[1] < 0.7 * found[0], found


def test_publishing_keeps_both_and_a_mean_neither(calibrated, tmp_path, capsys, monkeypatch):
    # a repository of something else, whose commit is not that of this code
    git = ['git', '-c', 'user.name=x', '-c', 'user.email=x', '-C', str(tmp_path)]
    for words in (['init'], ['commit', '--allow-empty', '-m', 'x']):
        subprocess.run([*git, *words], check=True, capture_output=True)
    head = subprocess.check_output([*git, 'rev-parse', 'HEAD'], text=True)
    monkeypatch.chdir(tmp_path)
    publish = ['publish', str(calibrated), '--name', 'x', '--models', str(tmp_path)]
    assert main(publish) == 0
    shipped, before = load_weights(tmp_path / 'x.safetensors'), load_weights(calibrated)
    assert not shipped.metadata.commit or not head.startswith(shipped.metadata.commit)
    assert shipped.metadata.temperature == before.metadata.temperature
    assert shipped.tensors.keys() == before.tensors.keys()
    # what float16 does not hold leaves the shipped ones as they are
    large = dict(before.tensors) | {'classify.bias': torch.full((11,), 1e5)}
    save_weights(tmp_path / 'large.safetensors', large, before.metadata)
    publish[1] = str(tmp_path / 'large.safetensors')
    assert main(publish) == 2 and '--no-half' in capsys.readouterr().err
    assert load_weights(tmp_path / 'x.safetensors').sha256 == shipped.sha256
    assert main([*publish, '--no-half']) == 0
    out = tmp_path / 'mean.safetensors'
    average_weights(AverageConfig(weights=(str(calibrated), str(calibrated)), out=str(out)))
    mean = load_weights(out)
    assert not has_reliability(mean) and mean.metadata.temperature == 1.0


@pytest.mark.parametrize(('light', 'taxonomy'), [('dusk', CAMVID11), ('day', COMMA10K)])
def test_what_is_dark_already_or_knows_no_sky_is_not_made_night(light, taxonomy, tmp_path):
    day = str(write_segmenter(tmp_path / 'day.safetensors', taxonomy=taxonomy))
    data = write_streets(tmp_path / 'set')
    for file in (tmp_path / 'set' / 'labels').iterdir():
        imwrite(file, np.minimum(read_labels(file), len(taxonomy) - 1))
    config = CalibrationConfig(weights=day, faults_on=(f'{data}:{light}',), cameras=0)
    about = calibrate(config, silent).metadata.training['calibration']['reliability']
    assert about['judged_frames'] == 4 * (1 + FAULTS)


def test_a_night_is_made_by_the_guesses_where_labels_have_gaps(tmp_path):
    fitted = []
    for name in ('gaps', 'guesses'):
        write_streets(tmp_path / name)
        labels = tmp_path / name / 'labels'
        for file in [*labels.iterdir()]:
            ids = read_labels(file)
            if name == 'guesses':
                imwrite(labels / 'scene' / file.name, ids)
            ids[:25] = 255
            imwrite(file, ids)
        path = str(write_segmenter(tmp_path / f'{name}.safetensors'))
        data = f'paired:{tmp_path / name}/images:{labels}'
        config = CalibrationConfig(weights=path, faults_on=(data,), cameras=0)
        fitted.append(calibrate(config, silent).tensors[f'{RELIABILITY}bias'])
    assert fitted[0] != fitted[1]


def test_what_cannot_be_fitted_is_refused(streets, calibrated, tmp_path):
    light = str(write_illumination(tmp_path / 'light.safetensors'))
    day = str(write_segmenter(tmp_path / 'day.safetensors'))
    alone = {'weights': str(calibrated), 'data': tuple(streets), 'faults_on': ()}
    for error, words, options in (
        (WeightsError, 'a segmenter', {'weights': light}),
        (WeightsError, 'give --faults-on as well', alone),
        (OutputError, 'is a folder', {'out': str(tmp_path)}),
        (DataError, 'two good frames or more', {'frames': 1, 'cameras': 0}),
    ):
        settings: Any = {'weights': day, 'faults_on': (streets[0],), **options}
        with pytest.raises(error, match=words):
            calibrate(CalibrationConfig(**settings), silent)


def _pipeline(folder: Path, route: str = 'day', **weights: str) -> Pipeline:
    light = write_illumination(folder / 'illumination.safetensors')
    config = WeightsConfig(illumination=str(light), **weights)
    return Pipeline.load(PipelineConfig(route=route, backend='torch', weights=config))


def _reliability(pipeline: Pipeline, image: np.ndarray) -> float:
    [result] = pipeline.process([Frame(image=image)])
    return result.reliability


def test_the_pipeline_says_what_the_reliability_is(calibrated, tmp_path):
    path = write_segmenter(tmp_path / 'day.safetensors')
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    pipeline = _pipeline(tmp_path, day=str(path))
    [result] = pipeline.process([Frame(image=image)], Want(labels=True, confidence=True))
    assert result.reliability == pytest.approx(result.confidence.mean() / 255, abs=0.01)
    described = pipeline.describe()['weights']['day']
    assert described['reliability'] == 'mean confidence'
    assert described['temperature'] == 'not calibrated'
    # the temperature is that of the confidence
    weights = load_weights(path)
    metadata = dataclasses.replace(weights.metadata, temperature=4.0)
    save_weights(tmp_path / 'cool.safetensors', dict(weights.tensors), metadata)
    cool = _pipeline(tmp_path, day=str(tmp_path / 'cool.safetensors'))
    assert _reliability(cool, image) < result.reliability
    # a frame without a network has none
    pipeline = _pipeline(tmp_path, day=str(calibrated))
    [result] = pipeline.process([Frame(image=image)], Want(labels=False))
    assert result.reliability is None
    assert pipeline.describe()['weights']['day']['reliability'] == 'fitted'


# -- the rendered weights ----------------------------------------------------------------------


@pytest.mark.parametrize('route', ['day', 'night'])
def test_blind_frames_are_told_from_streets(route, tmp_path):
    pipeline = _pipeline(tmp_path, route, day='rendered_day', night='rendered_night')
    streets = [
        render(Street(900 + seed, 'demo'), 40.0 * seed, route, seed=seed, size=(480, 288)).image
        for seed in range(4)
    ]
    good = min(_reliability(pipeline, street) for street in streets)
    rng = np.random.default_rng(0)
    black, white = np.zeros_like(streets[0]), np.full_like(streets[0], 255)
    noise = rng.integers(0, 256, black.shape, dtype=np.uint8)
    for image in (black, white, noise):
        # rendered weights give a black picture 0.58, the real ones 0.33
        assert _reliability(pipeline, image) < LEAST < good
    kinds = {
        name: _reliability(pipeline, make(streets[0], rng)) for name, make in CORRUPTIONS.items()
    }
    assert max(kinds.values()) < good, kinds
