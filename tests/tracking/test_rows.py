"""Rows of a table in MLflow: each written once a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retemper.tracking import rows
from retemper.tracking.store import connect, runs_where


def test_rows_are_written_once_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").touch()
    asked: list[str] = []
    failed: dict[str, str | None] = {"a": None, "b": "no memory"}

    def row(key: str) -> rows.Row:
        asked.append(key)
        settings = {"finetune": {"epochs": 4}, "system": "salt"}
        return rows.Row(f"run {key}", "naive", 1, settings, {"cpu_seconds": 2.0}, {"axis.size": "40"}, failed[key])

    def write() -> dict[str, Any]:
        states = {key: "failed" if why else "finished" for key, why in failed.items()}
        rows.write(tmp_path, "study-some", states, row)
        client = connect(tmp_path)
        experiment = client.get_experiment_by_name("study-some")
        assert experiment is not None
        return {run.data.tags["retemper.key"]: run for run in runs_where(client, experiment.experiment_id, "")}

    runs = write()
    assert {key: run.info.status for key, run in runs.items()} == {"a": "FINISHED", "b": "FAILED"}
    assert runs["a"].data.params == {"finetune.epochs": "4", "system": "salt"}
    assert runs["a"].data.metrics == {"cpu_seconds": 2.0}
    tags = runs["b"].data.tags
    assert (tags["retemper.reason"], tags["axis.size"], tags["retemper.strategy"]) == ("no memory", "40", "naive")
    write()
    assert asked == ["a", "b"]
    failed["b"] = None  # it was run again
    runs = write()
    assert asked == ["a", "b", "b"] and runs["b"].info.status == "FINISHED" and len(runs) == 2
