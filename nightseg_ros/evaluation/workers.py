# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Shards spread over this process, over several, or over the machines of a cluster.

A shard counts once its file is there, and files are put together in the order of the shards, so
that who evaluated a shard, how often it was tried and when it was ready changes no score.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from logging.handlers import MemoryHandler
import multiprocessing
from multiprocessing.context import SpawnContext
import os
from pathlib import Path
import signal
import tempfile
import threading
from typing import Any

from nightseg_ros.evaluation.inference import evaluate_shard, FinishedShard
from nightseg_ros.evaluation.sources import Shard
from nightseg_ros.evaluation.variants import Configurations, shared_out, Variants
from nightseg_ros.files import LOG, log_to_stderr, replace_file
from nightseg_ros.perception.pipeline import PipelineConfig

#: How often a shard is tried whose process was killed.
ATTEMPTS = 4
#: Seconds between two reports of progress.
_PROGRESS_S = 0.5
#: Hears how many frames of all shards are done.
Advance = Callable[[int], None]
#: Configurations as a key.
Items = tuple[tuple[str, PipelineConfig], ...]
#: In a worker: frames that are done of each shard, and 1 behind them once all shall end; shared
#: with the process that started it.
_done: MutableSequence[int] = []


class WorkerError(RuntimeError):
    """Processes that keep dying, or a cluster that cannot be reached."""


def _frames(paths: Sequence[Path]) -> list[int | None]:
    return [FinishedShard(path).note['frames'] if path.exists() else None for path in paths]


def run_here(
    shards: Sequence[Shard], variants: Variants, paths: Sequence[Path], save_labels: bool,
    advance: Advance,
) -> None:  # fmt: skip
    """Evaluate the shards one after the other, each into its file unless that is there."""
    before = 0
    for shard, path in zip(shards, paths):
        if not path.exists():
            evaluate_shard(
                shard, variants, path, save_labels=save_labels,
                advance=lambda done, before=before: advance(before + done),  # type: ignore[misc]
            )  # fmt: skip
        before += FinishedShard(path).note['frames']
        advance(before)


def run_processes(
    shards: Sequence[Shard], members: Configurations, paths: Sequence[Path], workers: int,
    save_labels: bool, advance: Advance, context: SpawnContext,
) -> None:  # fmt: skip
    """
    Evaluate the shards in ``workers`` processes of this machine.

    The cores are shared out among them unless a configuration sets ``threads``. The shard of a
    killed process is evaluated anew; ``WorkerError`` where shards kill it again and again.
    """
    workers = min(workers, len(shards))
    configurations = tuple(shared_out(members, workers).items())
    #: Only its worker writes the frames of a shard, so that no killed one holds a lock.
    done = context.RawArray('q', len(shards) + 1)
    for _ in range(ATTEMPTS):
        finished = _frames(paths)
        done[:] = [*(frames or 0 for frames in finished), 0]
        pool = ProcessPoolExecutor(workers, context, _begin, (done, LOG.level))
        try:
            futures: set[Future[None]] = {
                pool.submit(_evaluate, shard, number, configurations, path, save_labels)
                for number, (shard, path) in enumerate(zip(shards, paths))
                if finished[number] is None
            }
            while futures:
                ready, futures = wait(futures, _PROGRESS_S, FIRST_COMPLETED)
                for future in ready:
                    future.result()
                advance(sum(done))
            return
        except BrokenProcessPool:
            continue
        finally:
            # an error of one ends the others at their next frame
            done[len(shards)] = 1
            pool.shutdown(cancel_futures=True)
    raise WorkerError(
        f'processes were killed {ATTEMPTS} times (is the memory full?); '
        f'{_frames(paths).count(None)} of {len(paths)} sources are not done. The same command '
        'goes on from here'
    )


def _begin(done: MutableSequence[int], level: int) -> None:
    """Let Ctrl-C end a worker without a word, and an orphaned one end itself."""
    global _done
    _done = done
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log_to_stderr(level)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _evaluate(
    shard: Shard, number: int, configurations: Items, path: Path, save_labels: bool
) -> None:  # fmt: skip
    def advance(done: int) -> None:
        _done[number] = done
        if _done[-1]:
            raise InterruptedError('another source has failed')

    variants = _variants(configurations)
    evaluate_shard(shard, variants, path, save_labels=save_labels, advance=advance)


@lru_cache(maxsize=1)
def _variants(configurations: Items) -> Variants:
    return Variants(dict(configurations))


def run_ray(
    shards: Sequence[Shard], members: Configurations, paths: Sequence[Path], address: str,
    workers: int, save_labels: bool, advance: Advance,
) -> None:  # fmt: skip
    """
    Evaluate the shards on a Ray cluster, or with 'local' in ``workers`` Ray processes here.

    Sources, labels and weights have to lie under the same paths on every machine; finished shards
    come back through Ray. A shard whose process or machine is lost starts anew elsewhere.
    ``WorkerError`` where Ray is not installed or not reached.
    """
    try:
        import ray
    except ImportError as error:
        raise WorkerError("Ray is not installed: pip install 'nightseg[fleet]'") from error

    here = address == 'local'
    configurations = tuple(shared_out(members, workers if here else os.cpu_count() or 1).items())
    finished = _frames(paths)
    own = not ray.is_initialized()
    if own:
        _connect(ray, address, workers)
    try:
        task = ray.remote(
            # here --workers says how many run at a time
            num_cpus=1 if here else max(config.threads for _, config in configurations),
            num_gpus=int(any(config.device == 'cuda' for _, config in configurations)),
            max_retries=ATTEMPTS - 1,
        )(evaluate_to_bytes)
        waiting = {
            task.remote(shard, configurations, save_labels): number
            for number, shard in enumerate(shards)
            if finished[number] is None
        }
        while waiting:
            [reference], _ = ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(reference)
            try:
                content, warnings = ray.get(reference)
                for text in warnings:
                    LOG.warning('%s', text)
                replace_file(paths[number], content)
            except ray.exceptions.RayTaskError as error:
                # what the function itself raised: damaged input, missing weights
                raise (error.cause if isinstance(error.cause, Exception) else error) from error
            except ray.exceptions.RayError as error:
                name = shards[number].source
                raise WorkerError(f"'{name}' was lost {ATTEMPTS} times: {error}") from error
            finished[number] = FinishedShard(paths[number]).note['frames']
            advance(sum(frames or 0 for frames in finished))
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str, workers: int) -> None:
    here = address == 'local'
    where = {'num_cpus': workers, 'include_dashboard': False} if here else {'address': address}
    # Ray gives its own processes 30 s to start, which a busy machine may need longer for
    for left in (2, 1, 0) if here else (0,):
        try:
            ray.init(log_to_driver=False, logging_level='ERROR', **where)
            return
        # Ray raises plain exceptions here
        except Exception as error:
            ray.shutdown()
            if not left:
                raise WorkerError(f"Ray at '{address}' cannot be reached: {error}") from error


def evaluate_to_bytes(
    shard: Shard, configurations: Items, save_labels: bool
) -> tuple[bytes, list[str]]:  # fmt: skip
    """Evaluate a shard on whatever machine this is; return its file and what was warned of."""
    # without a target it keeps what it is given
    kept = MemoryHandler(0)
    LOG.addHandler(kept)
    try:
        with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
            path = Path(folder) / 'shard.npz'
            evaluate_shard(shard, _variants(configurations), path, save_labels=save_labels)
            return path.read_bytes(), [record.getMessage() for record in kept.buffer]
    finally:
        LOG.removeHandler(kept)
