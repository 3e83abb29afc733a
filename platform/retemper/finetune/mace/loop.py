"""The epoch loop over MACE's `train_one_epoch` and `evaluate`.

It stands in for `mace.tools.train`: the same order of schedule, training, validation and
best-model rule, plus progress after every epoch, checkpoints that a killed run resumes
from, an objective that sees the replay head, and a stop on a diverged loss.
"""

from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mace.tools.train import evaluate, train_one_epoch

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.finetune.mace import checkpoint
from retemper.finetune.mace.loaders import PairedLoader
from retemper.finetune.mace.loss import WholeSet
from retemper.finetune.plan import REPLAY
from retemper.records.training import Course

Progress = Callable[[dict[str, float]], None]
Probe = Callable[[torch.nn.Module], dict[str, float]]


class _Losses:
    """Collects the loss of every step; stands in for MACE's metrics logger."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, entry: dict[str, Any]) -> None:
        if entry.get("mode") == "opt":
            self.values.append(float(entry["loss"]))

    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def run(
    *,
    model: torch.nn.Module,
    loss_fn: torch.nn.Module,
    train_loader: Any,
    valid_loaders: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any,
    ema: Any,
    max_grad_norm: float | None,
    max_num_epochs: int,
    patience: int,
    output_args: dict[str, bool],
    device: torch.device,
    folder: Path,
    key: str,
    saved: dict[str, Any] | None,
    progress: Progress,
    probe: Probe | None = None,
) -> tuple[Course, dict[str, torch.Tensor]]:
    """Train, or go on training from `saved` (of `checkpoint.read`), until `max_num_epochs` or `patience`.

    Writes checkpoints of the run `key` and ``history.csv`` in `folder`. The objective that picks the best
    epoch and drives the schedule is the training loss on the validation sets, both heads included. `probe` looks
    at the averaged weights after every epoch; what it returns goes into the epoch's row and decides nothing.

    Returns
    -------
    tuple
        What the epochs came to, and the state dict of the best averaged weights.

    Raises
    ------
    RetemperError
        The loss became NaN or infinite; the last good model stays in the checkpoint.
    """
    losses = _Losses()
    state = {"epoch": 0, "best_epoch": -1, "best_loss": math.inf, "stale": 0, "seconds": 0.0, "valid_loss": math.inf}
    state["cpu_seconds"] = 0.0
    best: dict[str, torch.Tensor] = {}
    rows: list[dict[str, float]] = []
    if saved is not None:
        saved = checkpoint.resume(saved, device)
        best, rows = saved["best"], saved["history"]
        state.update(saved["state"])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        lr_scheduler.load_state_dict(saved["lr_scheduler"])
        if ema is not None:
            ema.load_state_dict(saved["ema"])
        _loader_restore(train_loader, saved["loader"])
    started_from = int(state["epoch"])

    def validate() -> dict[str, float]:
        row: dict[str, float] = {}
        averaged = ema.average_parameters() if ema is not None else contextlib.nullcontext()
        with averaged:
            for head, loader in valid_loaders.items():
                whole = WholeSet(loss_fn)
                _, metrics = evaluate(
                    model=model, loss_fn=whole, data_loader=loader, output_args=output_args, device=device
                )
                name = "valid_replay" if head == REPLAY else "valid"
                row[f"{name}.loss"] = whole.value()
                row[f"{name}.energy_rmse"] = float(metrics["rmse_e_per_atom"]) * 1e3
                row[f"{name}.force_rmse"] = float(metrics["rmse_f"]) * 1e3
            if probe is not None:
                row |= probe(model)
        # the replay loss comes out of ReplayLoss already multiplied by its weight
        row["valid_loss"] = row["valid.loss"] + row.get("valid_replay.loss", 0.0)
        return row

    if rows:
        _write_history(folder / "history.csv", rows)
    while state["epoch"] < max_num_epochs and state["stale"] < patience:
        epoch = int(state["epoch"])
        start, start_cpu = time.perf_counter(), time.process_time()
        if epoch > 0:
            lr_scheduler.step(metrics=state["valid_loss"])
        losses.values.clear()
        train_one_epoch(
            model=model,
            loss_fn=loss_fn,
            data_loader=train_loader,
            optimizer=optimizer,
            epoch=epoch,
            output_args=output_args,
            max_grad_norm=max_grad_norm,
            ema=ema,
            logger=losses,  # type: ignore[arg-type]
            device=device,
            distributed=False,
        )
        row = {"epoch": epoch, "train_loss": losses.mean(), "lr": _largest_lr(optimizer), **validate()}
        row["seconds"] = time.perf_counter() - start
        row["cpu_seconds"] = time.process_time() - start_cpu
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["valid_loss"])):
            raise RetemperError(
                f"Training diverged in epoch {epoch}: loss {row['train_loss']} in training, "
                f"{row['valid_loss']} in validation.",
                expected="a finite loss",
                fix="lower training.lr, lower training.clip_grad, or look for outliers in the training data",
            )
        state.update(epoch=epoch + 1, valid_loss=row["valid_loss"])
        for clock in ("seconds", "cpu_seconds"):
            state[clock] += row[clock]
        if row["valid_loss"] < state["best_loss"]:
            state.update(best_loss=row["valid_loss"], best_epoch=epoch, stale=0)
            with ema.average_parameters() if ema is not None else contextlib.nullcontext():
                best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        else:
            state["stale"] += 1
        rows.append(row)
        _write_history(folder / "history.csv", rows)
        checkpoint.save(
            folder,
            key,
            {
                "state": state,
                "history": rows,
                "best": best,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "lr_scheduler": lr_scheduler.state_dict(),
                "ema": ema.state_dict() if ema is not None else None,
                "loader": _loader_state(train_loader),
            },
        )
        progress(row)
    course = Course(
        best_epoch=int(state["best_epoch"]),
        best_loss=float(state["best_loss"]),
        epochs=int(state["epoch"]),
        seconds=float(state["seconds"]),
        cpu_seconds=float(state["cpu_seconds"]),
        started_from=started_from,
        converged=state["best_epoch"] + 1 < state["epoch"],  # else more epochs would have gone on improving
    )
    return course, best


def _largest_lr(optimizer: torch.optim.Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _loader_state(loader: Any) -> Any:
    return loader.state() if isinstance(loader, PairedLoader) else loader.generator.get_state()


def _loader_restore(loader: Any, state: Any) -> None:
    if isinstance(loader, PairedLoader):
        loader.restore(state)
    else:
        loader.generator.set_state(state.cpu())


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """``history.csv``: one line an epoch; a probe may come or go on resuming."""
    columns = list(dict.fromkeys(name for one in rows for name in one))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
