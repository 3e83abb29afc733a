"""The head of the report: what to do, and what speaks against relying on it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from compared import STRATEGIES
from run_files import (
    write_evaluation,
    write_preparation,
    write_project,
    write_training,
    write_verdict,
)

from retemper import report
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.core.files import read_json, write_json
from retemper.promotion import compare as paired
from retemper.records.runs import FOUNDATION, read_results
from retemper.records.trained_model import TrainedModel
from retemper.report import comparison as table
from retemper.report.cautions import cautions
from retemper.report.decision import decision
from retemper.report.findings import findings


def said(root: Path, settings: Settings) -> tuple[list[str], list[str]]:
    """Decision and cautions of the files as they are."""
    results = read_results(Project(root, settings))
    compared = table.compare(results)
    return decision(results, compared), cautions(results, compared)


def gated(root: Path) -> Settings:
    """The settings with a gate."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promotion"] = {"gates": [{"metric": "target.force_rmse", "max": 40}]}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return load_settings(root / "params.yaml")


def percent(text: str, before: str) -> float:
    """The percentage in front of some words."""
    match = re.search(rf"([\d.]+) % less than {re.escape(before)}", text)
    assert match is not None, text
    return float(match[1])


def test_champion_comes_first_with_its_numbers(project: tuple[Path, Settings]) -> None:
    """Ratios are of geometric means over seeds on the same frames: sqrt(30 31) against 200 and against sqrt(31 32)."""
    root, _ = project
    settings = gated(root)
    write_verdict(root, {"naive": (30.0, 1, [True]), "lora": (31.0, 2, [True]), "scratch": (90.0, 1, [False])}, "naive")
    lines, warnings = said(root, settings)
    assert lines[0].startswith("Use **naive**: `salt/1` (seed 1) passes its gate and is champion")
    assert 'retemper.load("salt@champion")' in lines[0]
    assert "Target forces: 30.5 meV/Å" in lines[1]
    assert percent(lines[1], "the untouched foundation's 200") == pytest.approx(
        100 * (1 - math.sqrt(30 * 31) / 200), abs=0.05
    )
    assert percent(lines[1], "the next best, **lora** with 31.5") == pytest.approx(
        100 * (1 - math.sqrt(30 * 31 / (31 * 32))), abs=0.005
    )
    assert lines[1].count("not told apart") == 1 and lines[1].endswith("not told apart).")
    outcomes = read_json(root / "runs/finetune/naive/summary.json")["seeds"]
    mean = sum(outcome["cpu_seconds"] for outcome in outcomes.values()) / 2
    assert f"Cost: {table.number(mean)} s of CPU time a seed" in lines[2] and "the 8 trainings" in lines[2]
    assert "10.2" in lines[3] and "least has **replay** with 2.02, at 45.5 meV/Å on the target" in lines[3]
    assert [line for line in warnings if line.startswith("Gates failed")] == [
        "Gates failed: **scratch** target.force_rmse (holds)."
    ]


def test_the_gain_is_the_paired_ratio_of_the_gates(project: tuple[Path, Settings]) -> None:
    """The interval against the foundation is what `promotion.compare` gives for the same errors by frame."""
    comparison = table.compare(read_results(Project(*project)))
    ratio = comparison.ratio("naive", FOUNDATION, "target.force_rmse")
    recipes = comparison.recipes["target.force_rmse"]
    scatter = paired.scatter({name: seeds for name, seeds in recipes.items() if name != FOUNDATION}, "force_rmse")
    expected = paired.over_seeds(recipes["naive"], recipes[FOUNDATION], "force_rmse", 0.975, scatter, ["naive"])
    assert ratio is not None and ratio == expected
    assert ratio.value == pytest.approx(math.sqrt(30.0 * 31.0) / 200.0, rel=0.02)  # geometric mean over seeds
    assert comparison.ratio("naive", FOUNDATION, "trainable_share") is None


def test_each_caution_is_one_line(project: tuple[Path, Settings]) -> None:
    """Eight trainings had not converged; the replay head of two seeds rose from 45 to 49."""
    root, settings = project
    _, warnings = said(root, settings)
    assert (
        "Not converged, the best epoch is the last (raise `finetune.epochs`): every strategy, seeds 1, 2." in warnings
    )
    assert sum("**replay** from 45.0 to 49.0" in line for line in warnings) == 1
    summary = read_json(root / "runs/finetune/lora/summary.json")
    summary["seeds"]["2"]["converged"] = True
    write_json(root / "runs/finetune/lora/summary.json", summary)
    _, warnings = said(root, settings)
    expected = "**scratch**, **naive** and **replay**, seeds 1, 2; **lora**, seed 1."
    assert any(line.endswith(expected) for line in warnings)
    assert any("fewer than three seeds" in line for line in warnings)
    assert any("only 8 structures" in line for line in warnings)


def test_no_gates_no_verdict_no_champion(project: tuple[Path, Settings]) -> None:
    root, settings = project
    assert "No gates are set" in said(root, settings)[0][0] and "**naive** has the lowest" in said(root, settings)[0][0]
    settings = gated(root)
    assert "`dvc repro promote`" in said(root, settings)[0][0]
    write_verdict(root, {"lora": (31.0, 2, [True, False]), "naive": (30.0, 1, [False, False])})
    lines, warnings = said(root, settings)
    assert lines[0].startswith("**There is no champion**") and "Nearest to it is **lora**" in lines[0]
    assert "the lowest of all, **naive** with 30.5" in lines[1]
    assert "**lora** target.force_rmse (holds); **naive** target.force_rmse (holds), target.force_rmse" in "".join(
        warnings
    )


@pytest.mark.parametrize("here", [True, False])
def test_champion_that_stays(project: tuple[Path, Settings], here: bool) -> None:
    """Its numbers are in this run if its weights are; otherwise those of the best of this run follow."""
    root, _ = project
    settings = gated(root)
    weights = read_json(root / "runs/finetune/lora/summary.json")["seeds"]["2"]["sha256"] if here else "0" * 64
    write_verdict(root, {"naive": (30.0, 1, [False])}, before=TrainedModel(weights, "lora", 2))
    lines, _ = said(root, settings)
    assert lines[0].startswith("The champion stays")
    assert f"The numbers here are those of **{'lora' if here else 'naive'}**" in lines[0]
    assert lines[1].startswith(f"Target forces: {31.5 if here else 30.5}")


def test_nothing_was_gained(project: tuple[Path, Settings]) -> None:
    root, settings = project
    write_evaluation(root, "foundation", {0: 30.0}, {0: 30.0}, 30.0)
    lines, warnings = said(root, settings)
    assert "1.65 % more than the untouched foundation's 30.0" in lines[1]  # sqrt(30 31) / 30
    assert "not told apart" in lines[1].split(", and ")[0]
    assert warnings[0].endswith("left as it is: **scratch** and **replay**.")


def test_findings_claim_what_the_intervals_allow(project: tuple[Path, Settings]) -> None:
    text = "\n".join(findings(table.compare(read_results(Project(*project)))))
    assert "**naive** has the lowest force RMSE" in text
    assert "do not distinguish **lora** from it" in text
    assert "**scratch**) gives 91.0 meV/Å" in text and "2.98 times that of **naive**" in text
    assert "**replay** forgets least" in text and "**naive** forgets most, with 10.2 times" in text
    assert "replay 1.04 against 2.02" in text


@pytest.mark.parametrize("strategies", [["naive"], ["naive", "lora"]])
def test_one_seed_and_one_strategy(tmp_path: Path, tiny_model: Path, strategies: Sequence[str]) -> None:
    settings = write_project(tmp_path, tiny_model, strategies)
    write_preparation(tmp_path)
    for name, force in zip(strategies, (30.0, 40.0), strict=False):
        write_training(tmp_path, name, {1: tiny_model})
        write_evaluation(tmp_path, name, {1: force}, {1: 300.0}, 30.0)
    lines, warnings = said(tmp_path, settings)
    assert "**naive** has the lowest" in lines[0] if len(strategies) > 1 else "**naive**" in lines[0]
    assert ("the next best, **lora**" in lines[1]) == (len(strategies) > 1)
    assert any("one seed for each strategy" in line for line in warnings)
    assert any("**naive**, seed 1." in line or "every strategy, seed 1." in line for line in warnings)


def test_head_is_short(project: tuple[Path, Settings]) -> None:
    """Eight trainings of four strategies: a line a subject, whatever the number of strategies."""
    root, _ = project
    write_verdict(root, {name: (30.0, 1, [name == "naive", True]) for name in STRATEGIES}, "naive")
    page = (report.run(Project(root, gated(root))) / "report.md").read_text()
    head = page.split("## What to do")[1].split("## Comparison")[0]
    assert head.count("\n- ") <= 9
