"""The report's first section says what to do, what that gained, forgot and cost, and what to know before."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from run_files import write_evaluation, write_preparation, write_project, write_training, write_verdict

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.promotion import compare as paired
from retemper.records.runs import FOUNDATION, read_results
from retemper.report.comparison import compare
from retemper.report.decision import decision
from retemper.report.page import Bullets, Paragraph

STRATEGIES = ["scratch", "naive", "lora"]


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """Two seeds; naive is a sixth of the foundation's error on the target, lora hardly worse."""
    settings = write_project(tmp_path, tiny_model, STRATEGIES, [1, 2])
    write_preparation(tmp_path)
    for name in STRATEGIES:
        write_training(tmp_path, name, {1: tiny_model, 2: tiny_model})
    write_evaluation(tmp_path, "foundation", {0: 200.0}, {0: 30.0}, 30.0)
    write_evaluation(tmp_path, "scratch", {1: 90.0, 2: 92.0}, {1: 3000.0, 2: 3100.0}, 30.0)
    write_evaluation(tmp_path, "naive", {1: 30.0, 2: 31.0}, {1: 300.0, 2: 310.0}, 30.0)
    write_evaluation(tmp_path, "lora", {1: 31.0, 2: 32.0}, {1: 150.0, 2: 152.0}, 30.0)
    return Project(tmp_path, settings)


def _with_gate(project: Project) -> Project:
    content = yaml.safe_load((project.root / "params.yaml").read_text())
    content["promotion"] = {"gates": [{"metric": "target.force_rmse", "max": 50}]}
    (project.root / "params.yaml").write_text(yaml.safe_dump(content))
    return Project.here(project.root)


def _said(project: Project) -> tuple[str, list[str]]:
    """The sentence on what to use, and all others."""
    results = read_results(project)
    first, *rest = decision(results, compare(results)).blocks
    assert isinstance(first, Paragraph) and first.kind == "lead"
    return first.text, [item for block in rest if isinstance(block, Bullets) for item in block.items]


def test_the_champion_what_it_gained_forgot_and_cost(project: Project) -> None:
    candidates = {"naive": (30.0, 1, [True]), "lora": (31.0, 1, [True]), "scratch": (90.0, 1, [False])}
    write_verdict(project.root, candidates, "naive")
    project = _with_gate(project)
    lead, lines = _said(project)
    assert lead.startswith("Use **") and "(naive, seed 1)" in lead and "of the 2 that do" in lead
    assert "@champion" in lead
    text = "\n".join(lines)
    assert "30.5 meV/Å" in text and "10.2 times" in text and "CPU time a seed" in text
    assert "Gates that fail: **scratch**" in text


def test_the_gain_is_the_paired_ratio_of_the_gates(project: Project) -> None:
    """The interval against the foundation is what `promotion.compare` gives for the same errors by frame."""
    comparison = compare(read_results(project))
    ratio = comparison.ratio("naive", FOUNDATION, "target.force_rmse")
    recipes = comparison.recipes["target.force_rmse"]
    scatter = paired.scatter({name: seeds for name, seeds in recipes.items() if name != FOUNDATION}, "force_rmse")
    expected = paired.over_seeds(recipes["naive"], recipes[FOUNDATION], "force_rmse", 0.975, scatter, ["naive"])
    assert ratio is not None and ratio == expected
    assert ratio.value == pytest.approx(math.sqrt(30.0 * 31.0) / 200.0, rel=0.02)  # geometric mean over seeds
    assert comparison.ratio("naive", FOUNDATION, "trainable_share") is None


def test_without_a_champion_nothing_is_recommended(project: Project) -> None:
    write_verdict(project.root, {"naive": (30.0, 1, [False]), "lora": (31.0, 1, [False])})
    project = _with_gate(project)
    lead, lines = _said(project)
    assert lead == "No model is fit for use yet: no candidate passes every gate."
    assert any("30.5 meV/Å" in line for line in lines)  # the best one's numbers all the same


def test_without_gates(project: Project) -> None:
    assert _said(project)[0].startswith("No model is promoted: there are no gates")


def test_one_seed_is_said(tmp_path: Path, tiny_model: Path) -> None:
    settings: Settings = write_project(tmp_path, tiny_model, ["naive", "lora"])
    for name, force in (("naive", 30.0), ("lora", 40.0)):
        write_training(tmp_path, name, {1: tiny_model})
        write_evaluation(tmp_path, name, {1: force}, {1: 300.0}, 30.0)
    _, lines = _said(Project(tmp_path, settings))
    assert any("one seed for each strategy" in line for line in lines)


def test_courses_are_said_once_for_all_strategies(project: Project) -> None:
    lines = _said(project)[1]
    assert sum("Not converged" in line for line in lines) <= 1
    assert any("fewer than three seeds" in line for line in lines) and any(
        "only 8 structures" in line for line in lines
    )
