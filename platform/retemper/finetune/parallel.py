"""Several runs side by side: worker processes that train, one process that reports.

Workers are warm: a further run in the same worker does not pay for the imports again.
The parent writes progress to the terminal and to MLflow, so that workers only compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.core.executor import Executor, Job, report
from retemper.finetune.plan import Plan
from retemper.models import library
from retemper.records.training import Outcome


def _run(plan: Plan, folder: Path) -> Outcome:
    """One run in a worker, its epochs reported."""
    library.import_mace()
    warnings.simplefilter("ignore")  # MACE and torch warn hundreds of times
    from retemper.finetune.mace.train import train

    return train(plan, folder, report)


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
    with Executor(count, device=plans[0].device) as pool:
        jobs = [
            pool.submit(Job(_run, (plan, folder), progress=partial(on_epoch, plan.seed)))
            for plan, folder in zip(plans, folders, strict=True)
        ]
        for _ in pool.finished():
            pass
    for plan, job in zip(plans, jobs, strict=True):
        if isinstance(job.error, RetemperError):
            raise job.error
        if job.error is not None:
            raise RetemperError(
                f"Training with seed {plan.seed} stopped: {type(job.error).__name__}: {job.error}.",
                fix=f"see {folders[0].parent}/*/training.log; running again goes on from the last epoch",
            ) from job.error
    return [job.value for job in jobs]


def line(strategy: str, seed: int, row: Mapping[str, float], epochs: int) -> str:
    """An epoch on the terminal, with the time that is left."""
    left = (epochs - 1 - row["epoch"]) * row["seconds"]
    replayed = {
        name.removeprefix("valid_").removesuffix(".force_rmse").removeprefix("replay_"): value
        for name, value in row.items()
        if name.startswith("valid_replay") and name.endswith(".force_rmse")
    }
    replay = "".join(f"  {head} F {value:7.1f}" for head, value in replayed.items())
    return (
        f"{strategy:>18s} seed {seed}  epoch {int(row['epoch']) + 1:3d}/{epochs}"
        f"  loss {row['valid_loss']:9.5f}  E {row['valid.energy_rmse']:7.2f} meV/atom"
        f"  F {row['valid.force_rmse']:7.1f} meV/A{replay}  {row['seconds']:5.1f} s  left {left:4.0f} s"
    )
