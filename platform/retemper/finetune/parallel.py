"""Several runs side by side: worker processes that train, one process that reports.

Workers are warm: a further run in the same worker does not pay for the imports again.
The parent writes progress to the terminal and to MLflow, so that workers only compute.
"""

from __future__ import annotations

import multiprocessing
import queue
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.finetune.plan import Plan
from retemper.records.training import Outcome

_events: Any = None  # the queue to the parent, set in each worker


def _start(events: Any) -> None:
    """First thing in a worker: follow the parent, and import what every run needs."""
    global _events
    processes.die_with_parent()
    _events = events
    processes.import_mace()
    warnings.simplefilter("ignore")  # MACE and torch warn hundreds of times at import


def _run(plan: Plan, folder: str) -> Outcome:
    from retemper.finetune.mace.train import train

    return train(plan, Path(folder), lambda row: _events.put((plan.seed, row)))


def workers(settings_workers: int | None, device: str, runs: int) -> int:
    """Processes to use: one a core on a CPU, one on a GPU, never more than there are runs."""
    most = settings_workers or (processes.cores() if device == "cpu" else 1)
    return max(1, min(most, runs))


def train_all(
    plans: list[Plan],
    folders: list[Path],
    count: int,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> list[Outcome]:
    """Train every plan in its folder, `count` at a time, and return what they came to.

    `on_epoch(seed, row)` is called here for every finished epoch. The first failure is
    raised after the other runs have finished; their checkpoints stay, so running again
    goes on. An interruption ends the workers at once.
    """
    processes.prepare(plans[0].device)
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    results: list[Outcome] = []
    failures: list[tuple[int, BaseException]] = []
    with (
        ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(events,)) as pool,
        processes.workers_end_with_an_interruption(),
    ):
        with processes.interruptions_for_this_process_alone():
            futures: list[Future[Outcome]] = [
                pool.submit(_run, plan, str(folder)) for plan, folder in zip(plans, folders, strict=True)
            ]
        while not all(future.done() for future in futures):
            _drain(events, on_epoch, wait=0.1)
        _drain(events, on_epoch, wait=0.5)
        for plan, future in zip(plans, futures, strict=True):
            error = future.exception()
            if error is None:
                results.append(future.result())
            else:
                failures.append((plan.seed, error))
    if failures:
        seed, error = failures[0]
        if isinstance(error, RetemperError):
            raise error
        cause = "its process was killed" if isinstance(error, BrokenProcessPool) else f"{type(error).__name__}: {error}"
        raise RetemperError(
            f"Training with seed {seed} stopped: {cause}.",
            fix=f"see {folders[0].parent}/*/training.log; running again goes on from the last epoch",
        ) from error
    return results


def _drain(events: Any, on_epoch: Callable[[int, dict[str, float]], None], wait: float) -> None:
    """Report what workers sent, until nothing has come for `wait` seconds."""
    while True:
        try:
            seed, row = events.get(timeout=wait)
        except queue.Empty:
            return
        on_epoch(seed, row)


class Printer:
    """One line an epoch on the terminal, with the time that is left."""

    def __init__(self, strategy: str, epochs: int):
        self.strategy, self.epochs = strategy, epochs

    def __call__(self, seed: int, row: dict[str, float]) -> None:
        left = (self.epochs - 1 - row["epoch"]) * row["seconds"]
        replay = f"  replay F {row['valid_replay.force_rmse']:7.1f}" if "valid_replay.force_rmse" in row else ""
        print(
            f"{self.strategy:>18s} seed {seed}  epoch {int(row['epoch']) + 1:3d}/{self.epochs}"
            f"  loss {row['valid_loss']:9.5f}  E {row['valid.energy_rmse']:7.2f} meV/atom"
            f"  F {row['valid.force_rmse']:7.1f} meV/A{replay}  {row['seconds']:5.1f} s  left {left:4.0f} s",
            flush=True,
            file=sys.stdout,
        )
