"""What people see and search in MLflow: names, descriptions, metrics of models by data set, the history of aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import promoted
import pytest

from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.registry import aliases, history, register
from retemper.tracking import runs
from retemper.tracking.store import connect, default_store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Two strategies of two seeds, registered in ``mlflow.db``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return promoted.build(tmp_path_factory.mktemp("pages"), tiny_model)


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's own store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def experiment(root: Path) -> str:
    """Its identifier."""
    return str(connect(root).get_experiment_by_name("test").experiment_id)


def names(found: Any) -> list[str]:
    """Of runs or logged models."""
    return sorted(entry.info.run_name if hasattr(entry, "info") else entry.name for entry in found)


def test_names_say_system_strategy_and_seed(root: Path) -> None:
    client: Any = connect(root)
    every = client.search_runs([experiment(root)])
    expected = ["salt foundation", "salt naive seed 1", "salt naive seed 2", "salt replay seed 3", "salt replay seed 4"]
    assert names(every) == expected
    assert {run.data.tags["retemper.system"] for run in every} == {"salt"}
    assert names(client.search_runs([experiment(root)], "tags.`retemper.system` = 'salt'")) == expected
    assert client.search_runs([experiment(root)], "tags.`retemper.system` = 'water'") == []
    naive = next(run for run in every if run.info.run_name == "salt naive seed 1")
    assert "`runs/finetune/naive/seed-1`" in naive.data.tags["mlflow.note.content"]
    assert naive.data.tags["mlflow.source.name"] == "finetune@naive" and naive.data.tags["mlflow.user"]
    assert "target.*" in client.get_experiment(experiment(root)).tags["mlflow.note.content"]


def test_models_are_found_by_metric_and_data_set(root: Path) -> None:
    """The errors as `promoted.build` writes them: 30, 30.3, 40 and 40.4 meV/A on the target."""
    number = experiment(root)

    def search(condition: str, **more: Any) -> list[str]:
        with default_store(root):
            return names(mlflow.search_logged_models([number], filter_string=condition, output_format="list", **more))

    assert search("metrics.`target.force_rmse` < 30.1") == ["salt-naive-seed-1"]
    naive = ["salt-naive-seed-1", "salt-naive-seed-2"]
    assert search("metrics.`target.force_rmse` < 40 AND params.system = 'salt'") == naive
    condition = "metrics.`target.force_rmse` < 40"
    assert search(condition, datasets=[{"dataset_name": "test"}]) == naive
    assert search(condition, datasets=[{"dataset_name": "retention"}]) == []
    assert search("metrics.forgetting_ratio < 1.3", datasets=[{"dataset_name": "retention"}]) == [
        "salt-replay-seed-3",
        "salt-replay-seed-4",
    ]
    first = connect(root).search_logged_models([number], order_by=[{"field_name": "metrics.target.force_rmse"}])[0]
    assert first.name == "salt-naive-seed-1" and first.tags["mlflow.note.content"].startswith("# salt: naive, seed 1")


def test_versions_are_found_by_tag_and_lead_to_runs_that_compare(root: Path) -> None:
    """The compare pages show metrics and parameters of the versions' runs."""
    client: Any = connect(root)
    (version,) = client.search_model_versions("name = 'salt' and tags.strategy = 'naive' and tags.seed = '2'")
    assert str(version.version) == "2" and version.tags["target.force_rmse"] == "30.3"
    run = client.get_run(version.run_id)
    assert run.data.metrics["target.force_rmse"] == pytest.approx(30.3)
    assert run.data.params["system"] == "salt" and run.data.params["name"] == "naive"


def test_runs_of_earlier_versions_are_known_by_their_tags(root: Path) -> None:
    """Their names were others, and they had no tag of the system: it is added, and no run is made twice."""
    client: Any = connect(root)
    before = {run.info.run_id for run in client.search_runs([experiment(root)])}
    run_id = next(run for run in before if client.get_run(run).info.run_name == "salt replay seed 3")
    client.update_run(run_id, name="replay/seed-3")
    client.delete_tag(run_id, "retemper.system")
    settings = load_settings(root / "params.yaml")
    assert runs.sync(root, settings)["replay"][3] == run_id
    assert {run.info.run_id for run in client.search_runs([experiment(root)])} == before
    assert client.get_run(run_id).data.tags["retemper.system"] == "salt"
    assert client.get_run(run_id).info.run_name == "replay/seed-3"
    client.update_run(run_id, name="salt replay seed 3")


def test_moves_of_aliases_are_told_on_the_models_page(root: Path) -> None:
    """Newest first, below what stands there, which a person may change."""
    client: Any = connect(root)
    aliases.move(root, "salt", "champion", "1", "override", "to try\nit")
    first = client.get_registered_model("salt").description
    assert first.startswith("Fine-tuned MACE models for salt")
    line = first.splitlines()[-1]
    assert "**champion**: version 1, naive seed 1, by override" in line and line.endswith(": to try it")
    client.update_registered_model("salt", first.replace("Fine-tuned MACE models", "Our models"))
    aliases.move(root, "salt", "champion", None, "override", "not good enough")
    second = client.get_registered_model("salt").description
    assert second.startswith("Our models for salt") and second.count("## Who had which alias") == 1
    newest, oldest = second.splitlines()[-2:]
    assert "**champion**: nobody, by override" in newest and oldest == line
    register.sync(Project(root, load_settings(root / "params.yaml")))
    assert client.get_registered_model("salt").description == second


def test_a_long_history_fits(root: Path) -> None:
    """MLflow takes 5000 characters: the oldest moves are left to the tags."""
    moves: list[history.Move] = []
    for k in range(60):
        moves.append(history.new(moves, "salt", "champion", None, None, "override", f"reason {k} " + 90 * "x"))
    text = history.described("About.", moves, {})
    assert len(text) < 5000 and "reason 59 " in text and "reason 0 " not in text
    assert history.described(text, moves, {}) == text
