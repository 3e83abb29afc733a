"""The grammar of metric names: validation and test never share one, and an unknown one is an error at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from retemper.config import metric_names
from retemper.config.settings import Settings, parse
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError
from retemper.records.runs import read_history


@pytest.mark.parametrize("where", ["gates", "objective"])
def test_an_unknown_metric_is_refused_when_the_settings_are_read(where: str) -> None:
    content: dict[str, Any] = dict(read_yaml(ROOT / "params.yaml"))
    wrong = (
        {"gates": [{"metric": "target.force_rms", "max": 1}]} if where == "gates" else {"objective": "target.forces"}
    )
    content["promotion"] = {**content["promotion"], **wrong}
    with pytest.raises(RetemperError, match=r"target\.force_"):
        parse(Settings, content, "params.yaml")


def test_the_direction_of_a_metric_is_no_setting() -> None:
    content: dict[str, Any] = dict(read_yaml(ROOT / "params.yaml"))
    gate = {"metric": "target.force_rmse", "relative_to": "champion", "better": "higher"}
    with pytest.raises(RetemperError, match="metrics know which direction is better"):
        parse(Settings, {**content, "promotion": {"gates": [gate]}}, "params.yaml")


def test_a_metric_of_every_file_of_the_suite_is_known() -> None:
    from retemper.evaluation.robustness import metrics

    assert {f"robustness.{name}" for name in metrics.names()} <= set(metric_names.measured_names())


def test_a_gate_on_the_drift_of_a_head_needs_that_head() -> None:
    content: dict[str, Any] = dict(read_yaml(ROOT / "params.yaml"))
    gate = {"metric": "drift_of_omol.force_rmse", "max": 30}
    kept = {**content, "replay": {**content.get("replay", {}), "heads": ["omol"]}}
    parse(Settings, {**kept, "promotion": {"gates": [gate]}}, "params.yaml")
    assert metric_names.better(gate["metric"]) == "lower"
    with pytest.raises(RetemperError, match=r"drift_of_omol\.force_rmse"):
        parse(Settings, {**content, "promotion": {"gates": [gate]}}, "params.yaml")
    for wrong, said in (
        ({"metric": "drift_of_omol.force_rms", "max": 30}, "did you mean"),
        ({"metric": "drift_of_omol.force_rmse", "relative_to": "foundation"}, "distance from the foundation"),
    ):
        with pytest.raises(RetemperError, match=said):
            parse(Settings, {**kept, "promotion": {"gates": [wrong]}}, "params.yaml")


def test_validation_and_test_share_no_name() -> None:
    validation = {f"{part}.{name}" for part in metric_names.VALIDATION for name in metric_names.ERRORS}
    assert validation.isdisjoint(metric_names.measured_names())


def test_former_histories_are_read_under_todays_names(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,target_force_rmse,replay_loss,valid_loss\n0,108.0,0.5,1.5\n")
    row = {"epoch": 0.0, "valid.force_rmse": 108.0, "valid_replay.loss": 0.5, "valid_loss": 1.5}
    assert read_history(tmp_path / "history.csv") == [row]
