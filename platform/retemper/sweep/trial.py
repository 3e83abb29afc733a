"""One trial in a Ray worker: a plan of `retemper.finetune`, trained where `finetune@S` would look for it.

The folder is named by the plan's content. So a trial that was killed goes on from its last epoch,
a setting that was trained before is found finished, and the winner is not trained again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retemper.config.strategies import Point
from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.finetune.plan import Plan
from retemper.models import library

TOKEN = "token"  # file in the study's folder by which a worker sees whether it reads the project
Report = dict[str, Any]  # what Ray Tune takes from a trial, and hands on


@dataclass(frozen=True)
class Task:
    """A trial as a worker gets it. Folders and files are those of the driver's node."""

    plan: Plan
    params: Point
    number: int
    is_default: bool  # the strategy's own setting
    folder: str  # of the training
    retention: str | None  # file
    objectives: list[str]
    prune: bool
    token: str  # file
    study: str  # content of that file


def run(config: dict[str, Task]) -> None:
    """Train the plan of ``config["task"]`` and report to Ray Tune.

    After every epoch but the last a row of the history is reported, with ``signal`` when early stopping is
    on; at the end the measured values with ``finished``, or ``failed`` with the reason. What Ray itself
    can mend (a killed process) is left to Ray, which starts the trial again.
    """
    from ray import tune

    progress = {"epoch": 0}
    try:
        tune.report(_train(config["task"], progress))
    except Exception as error:  # whatever it is, it would come again: recorded, not retried
        reason = str(error) if isinstance(error, RetemperError) else f"{type(error).__name__}: {error}"
        tune.report({"failed": reason, **progress})
    finally:
        processes.release_memory()  # the worker takes the next trial


def _train(task: Task, position: dict[str, int]) -> Report:
    """The trial's last report; `position` is kept up to date with the epoch."""
    from ray import tune

    library.import_mace()
    warnings.simplefilter("ignore")
    from retemper.finetune.mace.train import train
    from retemper.sweep import file_transfer, objectives

    plan, retention, prune = task.plan, task.retention, task.prune
    home = Path(task.folder)
    folder, trained = home, home.with_name(plan.trained.key)  # the same but for places on a line
    driver = None if file_transfer.sees_project(task.token, task.study) else file_transfer.home()
    if driver is not None:
        plan = file_transfer.relocate(plan, driver)
        brought = {place: file_transfer.bring(place, driver) for place in {folder, trained}}
        folder, trained = brought[folder], brought[trained]
        retention = file_transfer.fetch(retention, driver) if retention else None

    def progress(row: dict[str, float]) -> None:
        position["epoch"] = int(row["epoch"]) + 1
        if driver is not None:
            file_transfer.send(trained, home.with_name(trained.name), file_transfer.STATE, driver)
        if position["epoch"] < plan.epochs:
            report: Report = {"row": row, **position}
            if prune:
                report["signal"] = objectives.signal(row, task.objectives)
            tune.report(report)

    probe = objectives.probe(retention, plan.device, plan.dtype) if prune and retention else None
    outcome = train(plan, folder, progress, probe)
    values = objectives.measure(plan, folder, retention, task.objectives)
    if driver is not None:
        for place in dict.fromkeys((trained, folder)):
            file_transfer.send(place, home.with_name(place.name), file_transfer.RESULT, driver)
    return {"finished": values, "epoch": outcome.epochs, "seconds": outcome.seconds}
