# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The same function over all parts: in this process, in several, or on the machines of a cluster.

A part's records count once they are complete, and are put together in the order of the plan, so
that who measured a part, how often it was tried and when it was ready changes no score.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any

from nightseg_ros.evaluation.lineup import Configuration, Lineup, shared_out
from nightseg_ros.evaluation.measure import DONE, measure
from nightseg_ros.evaluation.part import Part
from nightseg_ros.evaluation.plan import Plan
from nightseg_ros.evaluation.record import frames_on_record

#: How often a part is tried whose process was killed.
ATTEMPTS = 4
_POLL_S = 0.5
_STARTS = 3


class FleetError(RuntimeError):
    """Processes that keep dying, or a cluster that cannot be reached."""


def part_folder(parts: Path, number: int) -> Path:
    """Return where the records of a part lie."""
    return parts / f'{number:05d}'


def run_here(plan: Plan, lineup: Lineup, parts: Path, advance: Callable[[int], None]) -> None:
    """Measure the parts one after the other; ``advance`` hears how many frames are done."""
    before = 0
    for number, part in enumerate(plan.parts):
        folder = part_folder(parts, number)

        def here(done: int, before: int = before) -> None:
            advance(before + done)

        measure(part, lineup, folder, save_labels=plan.save_labels, advance=here)
        before += frames_on_record(folder, len(plan.configurations), lineup.taxonomy)
        advance(before)


def run_processes(
    plan: Plan, parts: Path, workers: int, advance: Callable[[], None] = lambda: None
) -> None:
    """
    Measure the parts in ``workers`` processes of this machine; ``advance`` is called on the way.

    The cores are shared out among them unless a configuration sets ``threads``. A killed process
    costs the frames of its last second; ``FleetError`` where parts kill it again and again.
    """
    configurations = shared_out(plan.configurations, workers)
    for _ in range(ATTEMPTS):
        left = _left(plan, parts)
        if not left:
            return
        # a fork would copy the locks of threads that this process may have
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(min(workers, len(left)), context, _die_with_parent) as pool:
            futures: set[Future[None]] = {
                pool.submit(
                    _measure, plan.parts[number], configurations, part_folder(parts, number),
                    plan.save_labels,
                )
                for number in left
            }  # fmt: skip
            try:
                while futures:
                    done, futures = wait(futures, _POLL_S, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    advance()
            except BrokenProcessPool:
                continue
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if left := _left(plan, parts):
        raise FleetError(
            f'processes were killed {ATTEMPTS} times (is the memory full?); {len(left)} of '
            f'{len(plan.parts)} parts are not done. The same command goes on from here'
        )


def run_ray(
    plan: Plan, parts: Path, address: str, workers: int,
    advance: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """
    Measure the parts on a Ray cluster, or with 'local' in ``workers`` Ray processes here.

    Sources, labels and weights have to lie under the same paths on every machine; records come
    back through Ray. A part whose process or machine is lost starts anew elsewhere.
    ``FleetError`` where Ray is not installed or not reached.
    """
    try:
        import ray
    except ImportError as error:
        raise FleetError("Ray is not installed: pip install 'nightseg[fleet]'") from error

    cuda = any(item.config.device == 'cuda' for item in plan.configurations)
    configurations = shared_out(plan.configurations, os.cpu_count() or 1)
    own = not ray.is_initialized()
    if own:
        _connect(ray, address, workers)
    try:
        task = ray.remote(
            num_cpus=max(item.config.threads for item in configurations), num_gpus=int(cuda),
            max_retries=ATTEMPTS - 1,
        )(measure_packed)  # fmt: skip
        waiting = {
            task.remote(plan.parts[number], configurations, plan.save_labels): number
            for number in _left(plan, parts)
        }
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=_POLL_S)
            for reference in ready:
                number = waiting.pop(reference)
                unpack(_result(ray, reference, plan.parts[number]), part_folder(parts, number))
            advance()
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str, workers: int) -> None:
    where: dict[str, Any] = {'address': address}
    if address == 'local':
        where = {'num_cpus': workers, 'include_dashboard': False}
    for attempt in range(_STARTS):
        try:
            ray.init(log_to_driver=False, logging_level='ERROR', **where)
            return
        # Ray raises plain exceptions here
        except Exception as error:
            ray.shutdown()
            # it gives its own processes 30 s to start, which a busy machine may need longer for
            if address != 'local' or attempt == _STARTS - 1:
                raise FleetError(f"Ray at '{address}' cannot be reached: {error}") from error


def _result(ray: Any, reference: Any, part: Part) -> bytes:
    try:
        packed: bytes = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # what the function itself raised: damaged input, missing weights
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except ray.exceptions.RayError as error:
        raise FleetError(f"'{part.set}' was lost {ATTEMPTS} times: {error}") from error
    return packed


def measure_packed(
    part: Part, configurations: tuple[Configuration, ...], save_labels: bool
) -> bytes:
    """Measure a part in a folder of its own and return that as a tar archive."""
    with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
        _measure(part, configurations, Path(folder), save_labels)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode='w') as archive:
            archive.add(folder, arcname='.')
        return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Put a part's records in place, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(dir=folder.parent, prefix='.part-'))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(hidden, filter='data')
        shutil.rmtree(folder, ignore_errors=True)
        hidden.rename(folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _measure(
    part: Part, configurations: tuple[Configuration, ...], folder: Path, save_labels: bool
) -> None:
    measure(part, _lineup(configurations), folder, save_labels=save_labels)


def _die_with_parent() -> None:
    """Let Ctrl-C end a worker without a word, and an orphaned one end itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _lineup(configurations: tuple[Configuration, ...]) -> Lineup:
    """Load the networks once a process."""
    import cv2

    cv2.setNumThreads(max(item.config.threads for item in configurations))
    return Lineup.load(configurations)


def _left(plan: Plan, parts: Path) -> list[int]:
    return [
        number
        for number in range(len(plan.parts))
        if not (part_folder(parts, number) / DONE).exists()
    ]
