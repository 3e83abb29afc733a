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
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mace.tools.train import evaluate, train_one_epoch

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.finetune.mace import checkpoint
from retemper.finetune.mace.loaders import PairedLoader
from retemper.finetune.mace.loss import WholeSet
from retemper.finetune.mace.setup import Setup
from retemper.models.head_names import REPLAY, TARGET
from retemper.records.training import Course

Row = dict[str, float]  # of history.csv
Weights = dict[str, torch.Tensor]
Progress = Callable[[Row], None]
Probe = Callable[[torch.nn.Module], dict[str, float]]


class _Losses:
    """Collects the loss of every step; stands in for MACE's metrics logger."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def log(self, entry: dict[str, str | float]) -> None:
        if entry.get("mode") == "opt":
            self.values.append(float(entry["loss"]))

    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass
class _State:
    """Where a training stands between two epochs."""

    epoch: int = 0  # the next
    best_epoch: int = -1
    best_loss: float = math.inf
    stale: int = 0  # epochs since the best one
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    valid_loss: float = math.inf  # of the last epoch


def run(
    setup: Setup,
    folder: Path,
    key: str,
    saved: checkpoint.Content | None,
    progress: Progress,
    probe: Probe | None = None,
) -> tuple[Course, Weights]:
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
    training = _Training(setup, probe)
    state = training.state
    if saved is not None:
        training.resume(saved)
    started_from = state.epoch
    if training.rows:
        _write_history(folder / "history.csv", training.rows)
    while state.epoch < setup.max_num_epochs and state.stale < setup.patience:
        row = training.epoch()
        training.take(row)
        _write_history(folder / "history.csv", training.rows)
        checkpoint.save(folder, key, training.content())
        progress(row)
    course = Course(
        best_epoch=state.best_epoch,
        best_loss=state.best_loss,
        epochs=state.epoch,
        seconds=state.seconds,
        cpu_seconds=state.cpu_seconds,
        started_from=started_from,
        converged=state.best_epoch + 1 < state.epoch,  # else more epochs would have gone on improving
    )
    return course, training.best


class _Training:
    """A training between its epochs: MACE's objects, the state, the history and the best weights."""

    def __init__(self, setup: Setup, probe: Probe | None) -> None:
        self.setup, self.probe = setup, probe
        self.state = _State()
        self.rows: list[Row] = []
        self.best: Weights = {}

    def resume(self, saved: checkpoint.Content) -> None:
        """Take up what `content` gave to a checkpoint."""
        saved = checkpoint.resume(saved, self.setup.device)
        self.best, self.rows = saved["best"], saved["history"]
        for name, value in saved["state"].items():
            setattr(self.state, name, value)
        self.setup.model.load_state_dict(saved["model"])
        self.setup.optimizer.load_state_dict(saved["optimizer"])
        self.setup.lr_scheduler.load_state_dict(saved["lr_scheduler"])
        if self.setup.ema is not None:
            self.setup.ema.load_state_dict(saved["ema"])
        _loader_restore(self.setup.train_loader, saved["loader"])

    def content(self) -> checkpoint.Content:
        """All that a killed training goes on from."""
        ema = self.setup.ema
        return {
            "state": asdict(self.state),
            "history": self.rows,
            "best": self.best,
            "model": self.setup.model.state_dict(),
            "optimizer": self.setup.optimizer.state_dict(),
            "lr_scheduler": self.setup.lr_scheduler.state_dict(),
            "ema": ema.state_dict() if ema is not None else None,
            "loader": _loader_state(self.setup.train_loader),
        }

    def averaged(self) -> AbstractContextManager[Any]:
        """Within the block the model has the averaged weights."""
        ema = self.setup.ema
        context: AbstractContextManager[Any] = contextlib.nullcontext() if ema is None else ema.average_parameters()
        return context

    def epoch(self) -> Row:
        """Train and validate once; the row of the history.

        Raises
        ------
        RetemperError
            The loss is NaN or infinite.
        """
        setup, losses, epoch = self.setup, _Losses(), self.state.epoch
        start, start_cpu = time.perf_counter(), time.process_time()
        if epoch > 0:
            setup.lr_scheduler.step(metrics=self.state.valid_loss)
        train_one_epoch(
            model=setup.model,
            loss_fn=setup.loss_fn,
            data_loader=setup.train_loader,
            optimizer=setup.optimizer,
            epoch=epoch,
            output_args=setup.output_args,
            max_grad_norm=setup.max_grad_norm,
            ema=setup.ema,
            logger=losses,  # type: ignore[arg-type]
            device=setup.device,
            distributed=False,
        )
        row = {"epoch": epoch, "train_loss": losses.mean(), "lr": _largest_lr(setup.optimizer), **self.validate()}
        row["seconds"] = time.perf_counter() - start
        row["cpu_seconds"] = time.process_time() - start_cpu
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["valid_loss"])):
            raise RetemperError(
                f"Training diverged in epoch {epoch}: loss {row['train_loss']} in training, "
                f"{row['valid_loss']} in validation.",
                expected="a finite loss",
                fix="lower training.lr, lower training.clip_grad, or look for outliers in the training data",
            )
        return row

    def validate(self) -> Row:
        """Losses, and errors in meV/atom and meV/A, of the averaged weights."""
        setup, row = self.setup, {}
        with self.averaged():
            for head, loader in setup.valid_loaders.items():
                whole = WholeSet(setup.loss_fn)
                _, metrics = evaluate(
                    model=setup.model,
                    loss_fn=whole,
                    data_loader=loader,
                    output_args=setup.output_args,
                    device=setup.device,
                )
                name = {TARGET: "valid", REPLAY: "valid_replay"}.get(head, f"valid_replay_{head}")
                row[f"{name}.loss"] = whole.value()
                row[f"{name}.energy_rmse"] = float(metrics["rmse_e_per_atom"]) * 1e3
                row[f"{name}.force_rmse"] = float(metrics["rmse_f"]) * 1e3
            if self.probe is not None:
                row |= self.probe(setup.model)
        # the replay loss comes out of ReplayLoss already multiplied by its weight
        replayed = [value for name, value in row.items() if name.startswith("valid_replay") and name.endswith(".loss")]
        row["valid_loss"] = row["valid.loss"] + (sum(replayed) / len(replayed) if replayed else 0.0)
        return row

    def take(self, row: Row) -> None:
        """Add an epoch to the history; keep its weights where they are the best."""
        state = self.state
        state.epoch, state.valid_loss = state.epoch + 1, row["valid_loss"]
        state.seconds += row["seconds"]
        state.cpu_seconds += row["cpu_seconds"]
        if state.valid_loss < state.best_loss:
            state.best_loss, state.best_epoch, state.stale = state.valid_loss, state.epoch - 1, 0
            with self.averaged():
                weights = self.setup.model.state_dict()
                self.best = {name: value.detach().clone() for name, value in weights.items()}
        else:
            state.stale += 1
        self.rows.append(row)


def _largest_lr(optimizer: torch.optim.Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _loader_state(loader: Any) -> Any:
    return loader.state() if isinstance(loader, PairedLoader) else loader.generator.get_state()


def _loader_restore(loader: Any, state: Any) -> None:
    if isinstance(loader, PairedLoader):
        loader.restore(state)
    else:
        loader.generator.set_state(state.cpu())


def _write_history(path: Path, rows: list[Row]) -> None:
    """``history.csv``: one line an epoch; a probe may come or go on resuming."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
