# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The sweep: every cell trained and scored once, by as many processes and machines as there are.

A cell is a folder. It is done when its scores are there, its training goes on where it was
killed, and a claim file says who is at it, so that several sweeps of the same settings may run
in one shared folder (under the same path on every machine).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from nightseg_ros.training.cells import Cell, SweepError, check, plan, run
from nightseg_ros.training.claims import Claim, ClaimLost, take
from nightseg_ros.training.sweep_config import SweepConfig
from nightseg_ros.training.sweep_report import Report, write_report

Say = Callable[[str], None]


def sweep(config: SweepConfig, say: Say = print) -> Report:
    """
    Train and score what is missing, and write the curve: sweep.csv, sweep.md, .png and .svg.

    ``SweepError`` where a finished cell was made with other settings, or where a process died
    with cells left; what is finished stays, and the same command goes on.
    """
    cells = plan(config)
    for cell in cells:
        check(cell)
        cell.folder.mkdir(parents=True, exist_ok=True)
    left = sum(not cell.done() for cell in cells)
    say(f'{len(cells)} trainings, {len(cells) - left} done already')
    if config.workers == 1:
        work(config, cells, say)
    elif left:
        _spread(config)
    missing = [cell.name for cell in cells if not cell.done()]
    if missing:
        raise SweepError(
            f'{len(missing)} of {len(cells)} trainings are not done, the first is '
            f"'{missing[0]}': see above for what ended a process, then give the command again"
        )
    return write_report(config, cells)


def work(config: SweepConfig, cells: list[Cell], say: Say) -> None:
    """Do cells that nobody else is at until all are done, by whomever."""
    started, done_here = time.monotonic(), 0
    while True:
        left = [cell for cell in cells if not cell.done()]
        if not left:
            return
        claimed = _claim(left, config.expiry)
        if claimed is None:
            time.sleep(config.poll)
            continue
        cell, claim = claimed
        say(f'{cell.name}: {len(left)} of {len(cells)} trainings left')
        with claim:
            try:
                run(cell, _telling(cell, claim, say))
            except ClaimLost as lost:
                say(f'{cell.name}: {lost}')
                continue
        done_here += 1
        each = (time.monotonic() - started) / done_here
        rest = sum(not other.done() for other in cells)
        minutes = each * rest / config.workers / 60
        say(f'{cell.name}: done; {rest} of {len(cells)} left, about {minutes:.0f} min')


def _claim(left: list[Cell], expiry: float) -> tuple[Cell, Claim] | None:
    for cell in left:
        if not cell.ready():
            continue
        claim = take(cell.folder, expiry)
        if claim is None:
            continue
        # it may have been finished between the look and the claim
        if cell.done():
            claim.release()
            continue
        return cell, claim
    return None


def _telling(cell: Cell, claim: Claim, say: Say) -> Say:
    def tell(text: str) -> None:
        claim.check()
        say(f'{cell.name}: {text}')

    return tell


def _spread(config: SweepConfig) -> None:
    """Run the cells in processes of their own and wait for them."""
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    processes = [
        context.Process(target=_process, args=(config, threads, os.getpid()))
        for _ in range(config.workers)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _process(config: SweepConfig, threads: int, parent: int) -> None:
    torch.set_num_threads(threads)

    def say(text: str) -> None:
        if os.getppid() != parent:
            raise SystemExit('the sweep that started this process is gone')
        print(text, flush=True)

    work(config, plan(replace(config)), say)
