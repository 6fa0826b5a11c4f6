# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Two processes that share a batch train as one where their crops have as many labels each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_data import silent, tiny_config, write_streets

from nightseg_ros.config import to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.training.segmenter import train_segmenter

#: Seconds; a machine that does much else at the time starts processes slowly.
TIMEOUT = 800.0
pytestmark = pytest.mark.timeout(1000)


def read(out: Path, key: str) -> torch.Tensor:
    """Return the tensors of a checkpoint whose names hold ``key``, as one vector."""
    from safetensors.torch import load_file

    tensors = load_file(out / 'checkpoint.safetensors')
    chosen = [tensors[name].flatten() for name in sorted(tensors) if key in name]
    assert chosen
    return torch.cat(chosen)


@pytest.mark.slow
def test_torchrun_with_two_processes_trains_as_one_with_twice_the_batch(
    tmp_path: Path,
) -> None:
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
