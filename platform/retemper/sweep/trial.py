"""One trial in a Ray worker: a plan of `retemper.finetune`, trained where `finetune@S` would look for it.

The folder is named by the plan's content. So a trial that was killed goes on from its last epoch,
a setting that was trained before is found finished, and the winner is not trained again.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.models import library


def run(config: dict[str, Any]) -> None:
    """Train ``config["plan"]`` and report to Ray Tune.

    After every epoch but the last a row of the history is reported, with ``signal`` when early stopping is
    on; at the end the measured values with ``finished``, or ``failed`` with the reason. What Ray itself
    can mend (a killed process) is left to Ray, which starts the trial again.
    """
    from ray import tune

    ended = {"epoch": 0}
    try:
        tune.report(_train(config, ended))
    except Exception as error:  # whatever it is, it would come again: recorded, not retried
        reason = str(error) if isinstance(error, RetemperError) else f"{type(error).__name__}: {error}"
        tune.report({"failed": reason, **ended})
    finally:
        processes.release_memory()  # the worker takes the next trial


def _train(config: dict[str, Any], ended: dict[str, int]) -> dict[str, Any]:
    """The trial's last report; `ended` is kept up to date with the epoch."""
    from ray import tune

    library.import_mace()
    warnings.simplefilter("ignore")
    from retemper.finetune.mace.train import train
    from retemper.sweep import file_transfer, objectives

    plan, retention, prune = config["plan"], config["retention"], config["prune"]
    folder = Path(config["folder"])
    far = None if file_transfer.sees(config["token"], config["study"]) else file_transfer.home()
    if far is not None:
        plan, folder = file_transfer.relocated(plan, far), file_transfer.bring(config["folder"], far)
        retention = file_transfer.fetched(retention, far) if retention else None

    def progress(row: dict[str, float]) -> None:
        ended["epoch"] = int(row["epoch"]) + 1
        if far is not None:
            file_transfer.send(folder, config["folder"], file_transfer.STATE, far)
        if ended["epoch"] < plan.epochs:
            report = {"row": row, **ended}
            if prune:
                report["signal"] = objectives.signal(row, config["objectives"])
            tune.report(report)

    probe = objectives.probe(retention, plan.device, plan.dtype) if prune and retention else None
    outcome = train(plan, folder, progress, probe)
    values = objectives.measured(plan, folder, retention, config["objectives"])
    if far is not None:
        file_transfer.send(folder, config["folder"], file_transfer.RESULT, far)
    return {"finished": values, "epoch": outcome.epochs, "seconds": outcome.seconds}
