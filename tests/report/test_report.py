"""The report: numbers, marks, words and files."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from compared import STRATEGIES
from run_files import (
    history,
    write_evaluation,
    write_preparation,
    write_project,
    write_table,
    write_training,
)

from retemper import report
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.core.files import read_json, write_json
from retemper.promotion import compare
from retemper.records.evaluation import Estimate
from retemper.records.robustness import Robustness
from retemper.records.runs import pareto_front, read_results
from retemper.report import comparison as table
from retemper.report import robustness as sections_robustness
from retemper.report.findings import in_words
from retemper.report.page import Paragraph, Table

ROOT = Path(__file__).resolve().parents[2]


def test_results_of_an_earlier_version_are_asked_for_again(project: tuple[Path, Settings]) -> None:
    """Evaluations with intervals over frames, verdicts over frames, E0s without evidence: said, and not shown."""
    root, settings = project

    def without(content: Any, *keys: str) -> Any:
        if isinstance(content, dict):
            return {key: without(value, *keys) for key, value in content.items() if key not in keys}
        return [without(value, *keys) for value in content] if isinstance(content, list) else content

    def age(name: str, *keys: str) -> None:
        write_json(root / name, without(read_json(root / name), *keys))

    age("runs/dataset/manifest.json", "form")
    age("runs/e0s/e0s.json", "form")
    age("runs/evaluate/lora/metrics.json", "form")
    age("runs/robustness/naive/metrics.json", "form")
    results = read_results(Project(root, settings))
    assert "lora" not in results.evaluations and "naive" in results.evaluations
    assert "naive" not in results.robustness and "lora" in results.robustness
    page = (report.run(Project(root, settings)) / "report.html").read_text()
    assert "dvc repro -f evaluate@lora" in page and "dvc repro -f e0s" in page


@pytest.mark.parametrize("frames", [40, 36])
def test_strategies_measured_on_other_frames_are_not_compared(project: tuple[Path, Settings], frames: int) -> None:
    """One strategy evaluated on another test set, of as many frames or fewer, with half the error."""
    root, settings = project
    write_evaluation(root, "lora", {1: 15.0, 2: 16.0}, {1: 10.0, 2: 11.0}, 30.0, frames_of="other")
    path = root / "runs/evaluate/lora/frames.csv"
    kept = pd.read_csv(path)
    kept[kept["frame"] < frames].to_csv(path, index=False)
    found = table.compare(read_results(Project(root, settings)))
    assert found.elsewhere == ("lora",)
    assert found.value("lora", "target.force_rmse") is None and found.value("lora", "trainable_share") is not None
    assert found.best["target.force_rmse"] == "naive" and "lora" not in found.front
    assert "not compared (dvc repro): lora" in report.terminal_table(Project.here(root))
    assert "not compared: <code>lora</code>" in (report.run(Project(root, settings)) / "report.html").read_text()


def test_no_best_score_among_strategies_measured_otherwise(project: tuple[Path, Settings]) -> None:
    root, settings = project
    path = root / "runs/robustness/naive/metrics.json"
    robustness = Robustness.read(path)
    robustness.seeds[1].metrics["md"].identity = {"level": "thorough"}
    robustness.write(path)
    made = sections_robustness.section(read_results(Project(root, settings))).blocks[0]
    assert isinstance(made, Table) and {row[1].mark for row in made.rows} == {""}


def test_frames_whose_groups_are_not_named_show_nothing(project: tuple[Path, Settings]) -> None:
    root, settings = project
    for name in STRATEGIES:
        path = root / f"runs/evaluate/{name}/frames.csv"
        pd.read_csv(path).drop(columns="group").to_csv(path, index=False)
    found = table.compare(read_results(Project(root, settings)))
    assert found.value("naive", "target.force_rmse").low is None  # type: ignore[union-attr]
    assert not found.worse("scratch", "naive", "target.force_rmse")


def test_robustness_is_a_table(project: tuple[Path, Settings]) -> None:
    root, settings = project
    section = sections_robustness.section(read_results(Project(root, settings)))
    made = section.blocks[0]
    assert isinstance(made, Table) and made.columns == [("Strategy", ""), ("md", "%"), ("observables", "%")]
    cells = {row[0].text: row[1] for row in made.rows}
    assert (cells["replay"].text, cells["replay"].small, cells["replay"].mark) == ("95.0", "90.0 – 100.0 (10)", "best")
    assert cells["naive"].mark == cells["foundation"].mark == ""
    assert any("observables: no oracle" in block.text for block in section.blocks[1:] if isinstance(block, Paragraph))


# ------------------------------------------------------------------ numbers


def test_what_is_distinguished_is_what_the_paired_comparison_says(project: tuple[Path, Settings]) -> None:
    """Lora is behind naive by a few per cent on the same frames; both intervals alone are wider than that."""
    found = table.compare(read_results(Project(*project)))
    naive, lora = (found.value(name, "target.force_rmse") for name in ("naive", "lora"))
    assert naive is not None and lora is not None and naive.high is not None and lora.low is not None
    assert lora.low < naive.high
    recipes = found.recipes["target.force_rmse"]
    scatter = compare.scatter({name: seeds for name, seeds in recipes.items() if name != "foundation"}, "force_rmse")
    ratio = compare.over_seeds(recipes["lora"], recipes["naive"], "force_rmse", 0.975, scatter, ["lora", "naive"])
    assert found.worse("lora", "naive", "target.force_rmse") is (ratio.low > 1.0)
    assert ("lora" in found.tied["target.force_rmse"]) is (ratio.low <= 1.0)
    assert "scratch" not in found.tied["target.force_rmse"] and found.worse("foundation", "naive", "target.force_rmse")


def test_front_is_the_one_optuna_finds() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    random = np.random.default_rng(0)
    for _ in range(20):
        points = {str(k): (float(x), float(y)) for k, (x, y) in enumerate(random.integers(0, 6, (9, 2)))}
        study = optuna.create_study(directions=["minimize", "minimize"])
        for name, values in points.items():
            study.add_trial(optuna.trial.create_trial(values=list(values), user_attrs={"name": name}))
        assert sorted(pareto_front(points)) == sorted(trial.user_attrs["name"] for trial in study.best_trials)


def test_marks_and_front(project: tuple[Path, Settings]) -> None:
    found = table.compare(read_results(Project(*project)))
    assert list(found.rows) == ["foundation", *STRATEGIES]
    assert found.best["target.force_rmse"] == "naive"
    assert found.tied["target.force_rmse"] == ["lora"]
    assert found.best["retention.force_rmse"] == "replay"  # the foundation takes no part
    assert found.tied["retention.force_rmse"] == []
    assert found.front == ["foundation", "naive", "lora", "replay"]
    assert "trainable_share" not in found.best


def test_bounds_that_are_no_numbers_to_read_are_not_shown() -> None:
    """The 95 % interval of two groups whose errors differ by half spans eight orders of magnitude."""
    column = table.Column("target.force_rmse", "Target forces", "meV/Å")
    wide = Estimate(value=454.0, low=454.0 * math.exp(-11.4), high=454.0 * math.exp(11.4))
    assert table.interval(column, wide) == "too few groups"
    assert in_words(wide, "meV/Å") == "454 meV/Å (too few groups for an interval)"
    assert table.interval(column, Estimate(value=177.0, low=0.4, high=286.8)) == "0 – 287"


def test_numbers_have_three_digits() -> None:
    values = (0.0, 0.01234, 0.99960, 1.0, 9.996, 12.34, 99.96, 1234.5, 2e-6)
    texts = [table.number(value) for value in values]
    assert texts == ["0", "0.0123", "1.00", "1.00", "10.0", "12.3", "100", "1,234", "2.0e-06"]
    assert table.number(0.0456, like=31.6) == "0.0"


# ------------------------------------------------------------------ files


def test_same_files_give_the_same_report(project: tuple[Path, Settings]) -> None:
    root, settings = project
    first = {path.name: path.read_bytes() for path in report.run(Project(root, settings)).iterdir()}
    assert {path.name: path.read_bytes() for path in report.run(Project(root, settings)).iterdir()} == first


def test_data_for_other_programs(project: tuple[Path, Settings]) -> None:
    root, settings = project
    folder = report.run(Project(root, settings))
    rows = pd.read_csv(folder / "table.csv").set_index("strategy")
    assert rows.loc["naive", "target.force_rmse"] == pytest.approx(30.5)
    assert rows.loc["lora", "trainable_share"] == pytest.approx(0.05)
    assert rows.loc["replay", "forgetting_ratio_replay_head"] == pytest.approx(31.25 / 30.0)
    assert rows["forgetting_ratio_replay_head"].isna()["naive"]
    front = pd.read_csv(folder / "pareto.csv").set_index("strategy")
    assert front["pareto_front"].to_dict() == {"foundation": 1, "scratch": 0, "naive": 1, "lora": 1, "replay": 1}
    curves = pd.read_csv(folder / "curves.csv")
    assert len(curves) == 4 * 2 * 5
    one = curves[(curves.strategy == "naive") & (curves.seed == 2)]
    assert one["valid.force_rmse"].tolist() == pytest.approx([row["valid.force_rmse"] for row in history(5, 1.1)])
    metrics = read_json(folder / "metrics.json")
    assert metrics["naive.target.force_rmse"] == pytest.approx(30.5)
    assert all(isinstance(value, float) for value in metrics.values())


def test_dvc_reads_the_metrics(project: tuple[Path, Settings]) -> None:
    root, settings = project
    report.run(Project(root, settings))
    for command in (["init", "--no-scm", "-q"], ["metrics", "show", "--json", "runs/report/metrics.json"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=root,
            capture_output=True,
            text=True,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        )
        assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)[""]["data"]["runs/report/metrics.json"]["data"]
    assert shown["lora.target.force_rmse"] == pytest.approx(31.5)


def test_missing_stages_are_named(tmp_path: Path, tiny_model: Path) -> None:
    settings = write_project(tmp_path, tiny_model, ["naive", "lora"])
    for name in ("replay", "pseudolabel"):
        assert not (tmp_path / f"runs/{name}/manifest.json").exists()
    text = (report.run(Project(tmp_path, settings)) / "report.md").read_text()
    for stage in (
        "dataset",
        "e0s",
        "replay",
        "pseudolabel",
        "finetune@lora",
        "foundation",
        "evaluate@lora",
        "register@naive",
    ):
        assert f"`{stage}`" in text.split("## Comparison")[0]
    write_training(tmp_path, "naive", {1: tiny_model})
    write_evaluation(tmp_path, "naive", {1: 30.0}, {1: 300.0}, 30.0)
    text = (report.run(Project(tmp_path, settings)) / "report.md").read_text()
    assert "`finetune@lora`" in text and "`finetune@naive`" not in text
    assert "| naive" in text


def test_running_training_shows_before_its_summary(tmp_path: Path, tiny_model: Path) -> None:
    settings = write_project(tmp_path, tiny_model)
    write_table(tmp_path / "runs/finetune/naive/seed-1/history.csv", history(3))
    text = (report.run(Project(tmp_path, settings)) / "report.md").read_text()
    assert "not read back: the run did not finish" in text
    assert "**0 of 1 runs**" in text


def test_differences_and_open_e0s_are_shown(tmp_path: Path, tiny_model: Path) -> None:
    settings = write_project(tmp_path, tiny_model)
    write_preparation(tmp_path, deficient=["H", "O"])
    write_training(tmp_path, "naive", {1: tiny_model}, differences=["lr: asked 0.001, ran 0.0001"])
    text = (report.run(Project(tmp_path, settings)) / "report.md").read_text()
    assert "**Warning.** naive, seed 1: lr: asked 0.001, ran 0.0001" in text
    assert "do not determine the E0s of H, O (compositions of rank 1 for 3 elements): H : O = 2 : 1" in text
    assert "2 for `duplicate`, 1 for `dataset.max_force`" in text


def test_evaluation_without_retention(tmp_path: Path, tiny_model: Path) -> None:
    settings = write_project(tmp_path, tiny_model)
    write_training(tmp_path, "naive", {1: tiny_model})
    write_evaluation(tmp_path, "naive", {1: 30.0}, {1: 300.0}, 30.0)
    path = tmp_path / "runs/evaluate/naive/metrics.json"
    metrics = read_json(path)
    del metrics["seeds"]["1"]["retention"]
    metrics["summary"] |= {"retention": None, "forgetting_ratio": None}
    write_json(path, metrics)
    text = (report.run(Project(tmp_path, settings)) / "report.md").read_text()
    assert "Missing: evaluations on the target and on the retention set" in text
    assert "30.0" in text


def test_drift_stands_where_there_is_no_retention(project: tuple[Path, Settings]) -> None:
    """The foundation has none; strategies are ranked by it, and nothing is called retention or forgetting."""
    root, settings = project
    for name in ("foundation", *STRATEGIES):
        folder = root / "runs/evaluate" / name
        for path in folder.glob("*.csv"):
            lines = path.read_text().replace("retention", "drift").splitlines(keepends=True)
            path.write_text("".join(line for line in lines if name != "foundation" or "drift" not in line))
        content = read_json(folder / "metrics.json")
        for part in (content["summary"], *content["seeds"].values()):
            for head in ("", "_replay_head"):
                errors = part.pop(f"retention{head}", None)
                part[f"drift{head}"] = None if name == "foundation" else errors
                (errors or {}).pop("forgetting_ratio", None)
                part.pop(f"forgetting_ratio{head}", None)
        write_json(folder / "metrics.json", content)
    found = table.compare(read_results(Project(root, settings)))
    assert found.forgotten == "drift.force_rmse" and found.best["drift.force_rmse"] == "replay"
    assert set(found.front) == {"naive", "lora", "replay"} and found.value("foundation", "drift.force_rmse") is None
    text = report.terminal_table(Project.here(root))
    assert "Drift" in text and "Forgetting" not in text and "retention" not in text
    page = (report.run(Project(root, settings)) / "report.md").read_text()
    assert "**replay** stays nearest" in page and "forgets" not in page and "Forgotten" not in page
    assert "Drift: 305 meV/Å" in page and "least has **replay** with 60.5, at 45.5 meV/Å on the target" in page
    metrics = read_json(root / "runs/report/metrics.json")
    assert metrics["replay.drift.force_rmse"] == pytest.approx(60.5)


def test_terminal_table(project: tuple[Path, Settings]) -> None:
    root, _ = project
    text = report.terminal_table(Project.here(root))
    lines = {line.split()[1 if line.startswith("P ") else 0]: line for line in text.splitlines() if " – " in line}
    assert lines["naive"].startswith("P ") and lines["scratch"].startswith("  ")
    assert re.search(r"30\.5 \(2\d\.\d – 3\d\.\d\)\*", lines["naive"])
    assert re.search(r"31\.5 \(2\d\.\d – [34]\d\.\d\)~", lines["lora"])
    assert len({len(line) for line in text.splitlines() if line.startswith(("--", "P ", "  s"))}) == 1
    assert max(map(len, text.splitlines())) <= 120
    assert "runs/report/report.html" in text


def test_stage_runs_from_the_project_folder(project: tuple[Path, Settings]) -> None:
    root, _ = project
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}
    command = [sys.executable, "-m", "pipelines.report"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "naive" in done.stdout and (root / "runs/report/report.html").is_file()
    (root / "runs/evaluate/naive/metrics.json").write_text("{")
    broken = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert broken.returncode == 1 and "is not JSON" in broken.stderr and "Traceback" not in broken.stderr
    assert pd.read_csv(io.StringIO((root / "runs/report/table.csv").read_text())).shape[0] == 5  # the old one stays


def test_importing_the_report_is_light() -> None:
    script = (
        "import sys; import retemper.report, retemper.registry.register, retemper.tracking.runs; print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "mace", "mlflow", "matplotlib", "ray", "dvc"} & set(done.stdout.split())


def test_settings_of_the_fixture_are_valid(project: tuple[Path, Settings]) -> None:
    root, settings = project
    assert load_settings(root / "params.yaml") == settings
