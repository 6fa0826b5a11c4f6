# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Two processes that share a batch train as one; test_crash.py kills trainings."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_data import forks, silent, tiny_config, write_streets

from nightseg_ros.config import to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.training.losses import segmentation_loss, total
from nightseg_ros.training.run import open_fabric
from nightseg_ros.training.segmenter import train_segmenter

#: Seconds; a machine that does much else at the time starts processes slowly.
TIMEOUT = 800.0
pytestmark = pytest.mark.timeout(1000)
CASES: list[dict[str, Any]] = [
    {'lovasz': 0.0},
    {'lovasz': 0.5},
    {'lovasz': 0.5, 'sampled': 50},
    {'lovasz': 0.0, 'weight': torch.tensor([1.0, 2.0, 0.5])},
]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of two crops, the second with few labels."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 12, 16, generator=generator) * 2
    labels = torch.randint(0, 3, (2, 12, 16), generator=generator)
    labels[0, :2] = 255
    labels[1, 3:] = 255
    return logits, labels


def loss_of(logits: torch.Tensor, labels: torch.Tensor, case: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    return segmentation_loss(logits, labels, generator=generator, **case)


def half(rank: int, port: int, results: Any) -> None:
    """Send the gradients of one crop of the batch, in an environment such as torchrun's."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), TORCHELASTIC_RUN_ID='test',
        GROUP_RANK='0',
    )  # fmt: skip
    open_fabric('cpu', '32-true')
    logits, labels = batch()
    for case in CASES:
        part = logits[rank : rank + 1].clone().requires_grad_()
        loss = loss_of(part, labels[rank : rank + 1], case)
        loss.backward()
        mean = float(total(loss)) / 2
        assert part.grad is not None
        results.put((rank, mean, part.grad.numpy()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes_are_those_of_the_whole_batch() -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    context = forks()
    results = [context.Queue(), context.Queue()]
    children = [context.Process(target=half, args=(r, port, results[r])) for r in range(2)]
    for child in children:
        child.start()
    try:
        parts = [[queue.get(timeout=TIMEOUT) for _ in CASES] for queue in results]
    finally:
        for child in children:
            child.join(TIMEOUT)
            child.kill()
    for case, *found in zip(CASES, *parts):
        logits, labels = batch()
        logits.requires_grad_()
        loss = loss_of(logits, labels, case)
        loss.backward()
        # DDP takes the mean of the processes' gradients
        got = torch.cat([torch.from_numpy(gradient) / 2 for _, _, gradient in found])
        torch.testing.assert_close(got, logits.grad, msg=lambda text: f'{case}: {text}')  # noqa: B023
        for _, mean, _ in found:
            assert mean == pytest.approx(loss.item(), rel=1e-5), case


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
        'steps': 2, 'freeze_norm': True, 'precision': '32-true', 'picture_every': 1,
        'arch': {'variant': 'tiny', 'width': 16, 'fine_width': 16, 'dropout': 0.0},
        'augment': AugmentConfig(crop=(64, 96)),
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
