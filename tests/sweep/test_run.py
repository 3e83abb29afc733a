"""A sweep from end to end: what it leaves, what finetune takes over, pruning, warm start, MLflow."""

from __future__ import annotations

import csv
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from sweeps import change, make_project, stage

from retemper.config.project import Project
from retemper.core.files import read_json
from retemper.models.predict import predict
from retemper.records.runs import pareto_front, read_history
from retemper.records.sweep import best_settings
from retemper.records.training import Effective, TrainingSummary
from retemper.sweep import alike, status
from retemper.sweep import optuna_study as studies
from retemper.tracking import sweeps

EPOCHS = 4


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any]) -> tuple[Path, str]:
    """A project after ``python -m pipelines.sweep naive`` with early stopping, and what was printed."""
    root = make_project(tmp_path_factory.mktemp("swept") / "project", files, trials=6, prune=True, concurrent=2)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["finetune"]["epochs"] = EPOCHS
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root, stage(root, "sweep", "naive")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_sweep_leaves(swept: tuple[Path, str]) -> None:
    """Tables, front, study and choice agree with each other and with the trainings."""
    root, printed = swept
    folder = root / "runs/sweep/naive"
    rows = table(folder / "trials.csv")
    assert len(rows) == 6 and rows[0]["training.lr"] == "0.001"  # the strategy's own setting is first
    complete = [row for row in rows if row["state"] == "complete"]
    assert rows[0] in complete and all(row["target"] and row["retention"] for row in complete)
    for row in complete:
        assert row["epochs"] == str(EPOCHS)
        history = read_history(root / f".cache/training/{row['training']}/history.csv")
        best = min(history, key=lambda line: line["valid_loss"])
        assert float(row["target"]) == pytest.approx(best["valid.force_rmse"], rel=1e-6)
        # the probe of the averaged weights in training, and the saved model on its own, agree
        assert float(row["retention"]) == pytest.approx(best["valid_retention.force_rmse"], rel=1e-6)
        errors = read_json(root / f".cache/training/{row['training']}/{alike.FILE}")
        for name in ("target", "retention"):  # the sums over groups are those of the errors
            square, count = (sum(errors[name][part].values()) for part in ("squares", "counts"))
            assert 1e3 * math.sqrt(square / count) == pytest.approx(float(row[name]), rel=1e-4)
    points = {row["trial"]: (float(row["target"]), float(row["retention"])) for row in complete}
    assert {row["trial"] for row in table(folder / "front.csv")} == set(pareto_front(points))
    with sqlite3.connect(folder / "study.db") as database:
        assert database.execute("select count(*) from trials").fetchone() == (6,)
    best = yaml.safe_load((folder / "best.yaml").read_text())
    product = {trial: target * retention for trial, (target, retention) in points.items()}
    assert best["chosen"]["trial"] == int(min(product, key=lambda trial: product[trial]))
    assert best["chosen"]["compared"] == len(complete) - 1 and best["chosen"]["groups"] > 0
    assert best["provenance"]["data"]["foundation_sha256"]
    lines = [line.split() for line in printed.splitlines()]
    assert {line[0] for line in lines if len(line) > 1 and line[1] in ("complete", "pruned", "failed")} == set("012345")
    assert "(pid=" not in printed and "ray" not in printed.lower().replace("array", "")  # no noise


def test_pruned_trials_are_pruned(swept: tuple[Path, str]) -> None:
    """Some were stopped before their last epoch; Optuna's own states say so."""
    root, _ = swept
    (cache,) = (root / ".cache/sweep").iterdir()
    (summary,) = optuna.get_all_study_summaries(studies.storage(cache))
    study = optuna.load_study(study_name=summary.study_name, storage=studies.storage(cache))
    states = [one.state.name for one in study.trials]
    pruned = [one for one in studies.trials(study) if one.state == "pruned"]
    assert "PRUNED" in states and len(pruned) == states.count("PRUNED")
    for one in pruned:
        assert 1 <= one.epochs < EPOCHS and not one.values
        assert not (root / f".cache/training/{one.training}/summary.json").exists()
    assert sorted(len(trial.values) for trial in study.best_trials) == [2] * len(study.best_trials)


def test_runs_in_mlflow(swept: tuple[Path, str]) -> None:
    """A parent run, and a nested run with its curve for every trial, in the state in which it ended."""
    import mlflow

    root, _ = swept
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sweeps")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["retemper.kind"] == "sweep"]
    nested = {int(run.data.tags["retemper.trial"]): run for run in runs if run.data.tags["retemper.kind"] == "trial"}
    assert parent.info.status == "FINISHED" and sorted(nested) == list(range(6))
    for row in table(root / "runs/sweep/naive/trials.csv"):
        run = nested[int(row["trial"])]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[row["state"]]
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "valid.force_rmse")]
        assert steps == list(range(int(row["epochs"])))
        if row["state"] == "complete":
            assert run.data.metrics["sweep.retention"] == pytest.approx(float(row["retention"]), rel=1e-6)


def test_mlflow_is_rebuilt_from_the_files(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking store that is lost: the same runs, states, curves and values come back from ``runs/sweep``."""
    import mlflow

    root, _ = swept
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = f"sqlite:///{root / 'mlflow.db'}"
    second = f"sqlite:///{root / 'other.db'}"

    def content(uri: str) -> dict[str, Any]:
        client = mlflow.MlflowClient(uri)
        runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
        return {
            run.info.run_name: (
                run.info.status,
                run.data.metrics,
                run.data.params,
                [m.value for m in client.get_metric_history(run.info.run_id, "train_loss")],
            )
            for run in runs
            if run.data.tags["retemper.kind"] in ("sweep", "trial")
        }

    monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
    assert sweeps.sync(Project.here(root)) == 6
    lost, found = content(first), content(second)
    assert sorted(found) == sorted(lost)
    for name in lost:
        assert found[name][0] == lost[name][0] and found[name][3] == pytest.approx(lost[name][3])
        assert found[name][1] == pytest.approx(lost[name][1], rel=1e-6) and found[name][2] == lost[name][2]
    sweeps.sync(Project.here(root))
    assert content(second) == found


def test_the_winner_is_taken_over(swept: tuple[Path, str]) -> None:
    """finetune@S uses the setting and does not train it again; a finished sweep is not repeated."""
    root, _ = swept
    best = yaml.safe_load((root / "runs/sweep/naive/best.yaml").read_text())
    model = root / f".cache/training/{best['provenance']['training']}/model.safetensors"
    written = model.stat().st_mtime_ns
    assert "epoch " not in stage(root, "finetune", "naive").split("best epoch")[0]
    assert model.stat().st_mtime_ns == written
    summary = TrainingSummary.read(root / "runs/finetune/naive/summary.json")
    assert summary.found_by_sweep == best["settings"] == best_settings(Project.here(root), "naive")
    assert summary.seeds[3].sha256 == best["provenance"]["model_sha256"]
    ran = Effective.read(root / "runs/finetune/naive/seed-3/effective.json").ran
    assert ran.lr == pytest.approx(best["settings"]["training.lr"])
    assert "nothing to search" in stage(root, "sweep", "naive")


def test_retention_is_that_of_the_model(swept: tuple[Path, str]) -> None:
    """The number in the table, computed again from the saved model by ASE's calculator interface."""
    import numpy as np
    from ase.io import read

    root, _ = swept
    best = yaml.safe_load((root / "runs/sweep/naive/best.yaml").read_text())
    frames = read(root / "runs/replay/valid.extxyz", ":")
    model = root / f".cache/training/{best['provenance']['training']}/model.safetensors"
    forces = predict(model, frames, dtype="float64", backend="torch").forces
    errors = [f - atoms.arrays["REF_forces"] for f, atoms in zip(forces, frames, strict=True)]
    rmse = 1e3 * float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    assert best["objectives"]["retention"] == pytest.approx(rmse, rel=1e-5)


def test_status_and_show(swept: tuple[Path, str]) -> None:
    root, _ = swept
    assert "6 epochs" not in (text := status.status(Project.here(root), None)) and f"{EPOCHS} epochs" in text
    shown = status.show(Project.here(root), "naive")
    assert "importance for retention" in shown or "pruned" in shown
    assert "sqlite:///.cache/sweep/" in shown  # the study that grows, not the copy of it
    assert shown.count("  *") >= len(table(root / "runs/sweep/naive/front.csv"))


def test_another_scope_chooses_without_training(swept: tuple[Path, str]) -> None:
    root, _ = swept
    change(root, scope="single-system")
    assert "nothing to search" in stage(root, "sweep", "naive")
    rows = [row for row in table(root / "runs/sweep/naive/trials.csv") if row["state"] == "complete"]
    best = yaml.safe_load((root / "runs/sweep/naive/best.yaml").read_text())
    assert best["objectives"]["target"] == pytest.approx(min(float(row["target"]) for row in rows), rel=1e-6)
    change(root, scope="family")


@pytest.mark.slow
def test_a_later_sweep_starts_warm(swept: tuple[Path, str]) -> None:
    """Another space on the same data: finished trials are there with their results, and are not trained again."""
    root, _ = swept
    earlier = [row for row in table(root / "runs/sweep/naive/trials.csv") if row["state"] == "complete"]
    path = root / "strategies/naive.yaml"
    content = yaml.safe_load(path.read_text())
    content["search"]["training.lr"]["high"] = 0.02
    path.write_text(yaml.safe_dump(content))
    change(root, trials=1)
    printed = stage(root, "sweep", "naive")
    assert f"{len(earlier) - 1} finished trial(s)" in printed  # all but the default, which is the first trial itself
    rows = table(root / "runs/sweep/naive/trials.csv")
    taken = {row["training"]: row for row in rows if row["earlier"]}
    assert len(taken) == len(earlier) - 1
    for row in earlier[1:]:
        assert float(taken[row["training"]]["retention"]) == pytest.approx(float(row["retention"]), rel=1e-7)
    assert json.loads((root / "runs/sweep/naive/about.json").read_text())["trials"] == len(earlier)


@pytest.mark.slow
def test_holes_are_those_of_the_robustness_suite(swept: tuple[Path, str], tmp_path: Path) -> None:
    """The objective, computed again from the saved model by ``retemper evaluate``'s way: its own back end and pool."""
    from retemper.data.frames import read_frames
    from retemper.evaluation.robustness import suite
    from retemper.evaluation.robustness.context import Context
    from retemper.models import evaluators

    root, _ = swept
    before = (root / "params.yaml").read_text()
    change(root, trials=1, objectives=["target", "retention", "holes"])
    try:
        printed = stage(root, "sweep", "naive")
    finally:
        (root / "params.yaml").write_text(before)
    (row,) = table(root / "runs/sweep/naive/trials.csv")
    frames = read_frames(root / "runs/dataset/valid.extxyz")
    elements = tuple(sorted({int(z) for atoms in frames for z in atoms.numbers}))
    model = root / f".cache/training/{row['training']}/model.safetensors"
    here = Context(evaluators.describe(str(model)), elements, frames=frames)
    found = suite.evaluate(here, ["short_range"], tmp_path / "out", cache=tmp_path / "cache", workers=1)
    value = found.metrics["short_range"].value
    assert 0 <= value < 100  # so small a model has holes: the number says something
    assert float(row["holes"]) == pytest.approx(100 - value)
    assert "holes" in printed


def test_no_search_is_quick_and_changes_nothing(files: dict[str, Any], tmp_path: Path) -> None:
    """With no trials the stage imports neither Ray nor torch and gives the strategy's own settings."""
    import subprocess
    import sys

    from sweeps import environment

    root = make_project(tmp_path / "project", files)
    code = (
        "import sys; from pipelines.sweep import main; main('naive'); "
        "print(sorted({'ray', 'optuna', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert best_settings(Project.here(root), "naive") == {}
