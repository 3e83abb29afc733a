"""Trainings whose kept files are damaged or of another training."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_files import flip
from trainings import make_plan, weights
from trainings import run as train

from retemper.core.errors import RetemperError
from retemper.finetune import collect
from retemper.finetune.mace import checkpoint

EPOCHS = 3


class Stopped(Exception):  # noqa: N818 (not an error)
    """Ends a training after an epoch, as a kill does."""


@pytest.fixture(scope="module")
def trained(files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A whole training, one of the same that was stopped after two epochs, and a finished one of another seed."""
    root = tmp_path_factory.mktemp("trained")
    plan = make_plan(files, "naive", epochs=EPOCHS, training__lr=1e-3)
    train(plan, root / "whole")
    train(dataclasses.replace(plan, seed=2), root / "another")

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise Stopped

    from retemper.finetune.mace import train as worker

    with pytest.raises(Stopped):
        worker.train(plan, root / "stopped", stop)
    return root, root / "whole", plan


LAST, BEFORE, MODEL = checkpoint.LAST, checkpoint.BEFORE, collect.FILES[0]


STOPPED: dict[str, tuple[tuple[str, ...], int]] = {  # files that are damaged, and the epoch from which it goes on
    "nothing": ((), 2),
    "the last checkpoint": ((LAST,), 1),
    "both checkpoints": ((LAST, BEFORE), 0),
    "the history": (("history.csv",), 2),
}


@pytest.mark.hostile("caches")
@pytest.mark.parametrize("damaged", STOPPED)
def test_a_stopped_training_goes_on_from_what_is_sound(
    damaged: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, whole, plan = trained
    folder = shutil.copytree(root / "stopped", tmp_path / "run")
    names, epoch = STOPPED[damaged]
    for name in names:
        flip(folder / name, 0.7)
    capsys.readouterr()
    summary, _ = train(plan, folder)
    assert summary.started_from == epoch
    said = capsys.readouterr().out
    assert all(f"{name}: it is damaged; put aside" in said for name in names if name != "history.csv")
    assert_same(folder, whole)


FOREIGN: dict[str, tuple[str, ...]] = {
    "a folder of another seed": (),
    "the model of another seed": (MODEL,),
    "model and summary of another seed": (MODEL, collect.SUMMARY),
    "a checkpoint of another seed": (LAST, collect.SUMMARY),
}


@pytest.mark.hostile("caches")
@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_training_is_noticed(
    case: str, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, whole, plan = trained
    folder = shutil.copytree(whole if FOREIGN[case] else root / "another", tmp_path / "run")
    for name in FOREIGN[case]:
        shutil.copy(root / "another" / name, folder / name)
    if FOREIGN[case] == (MODEL,):  # exchanged after the training, before the stage takes it over
        with pytest.raises(RetemperError, match="is not as it was left"):
            collect._outcome_of(plan, folder, folder)
    capsys.readouterr()
    train(plan, folder)
    assert "put aside as" in capsys.readouterr().out
    assert_same(folder, whole)


def assert_same(folder: Path, whole: Path) -> None:
    """The same weights to every digit, and the same history but for its clocks."""
    a, b = weights(folder), weights(whole)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    untimed = [
        [line.split(",")[:-2] for line in (one / "history.csv").read_text().splitlines()] for one in (folder, whole)
    ]
    assert untimed[0] == untimed[1] and len(untimed[0]) == EPOCHS + 1
