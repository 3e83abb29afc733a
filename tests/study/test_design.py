"""Studies: what a file may say, and which points its designs have."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError
from retemper.study import design, plan
from retemper.study.spec import Study, load

CENTRE = {"system": "nacl", "foundation": "mini", "strategy": "naive", "size": 50}


def study(**designs: Any) -> Study:
    return Study.model_validate({"name": "some", "centre": CENTRE, "designs": designs})


def points(made: Study, lacks: set[tuple[str, str]] = frozenset()) -> list[design.Point]:  # type: ignore[assignment]
    return design.points(made, lambda strategy, axis: (strategy, axis) in lacks)


def test_full() -> None:
    """2 x 3 combinations, everything else at the centre, E0s and seed at their usual levels."""
    found = points(study(all={"axes": {"strategy": ["naive", "replay"], "size": [5, 20, "all"]}}))
    assert [(p.levels["strategy"], p.levels["size"]) for p in found] == [
        ("naive", 5), ("naive", 20), ("naive", "all"), ("replay", 5), ("replay", 20), ("replay", "all"),
    ]  # fmt: skip
    usual = {"system": "nacl", "foundation": "mini", "e0s": "reestimate", "seed": 1}
    assert all(p.levels[axis] == level for p in found for axis, level in usual.items())


def test_one_at_a_time_repeats_with_every_seed() -> None:
    """Centre, two other strategies, one other size: four points, each with both seeds; the centre is there once."""
    axes = {"strategy": ["naive", "replay", "lora"], "size": [50, 5], "seed": [1, 2]}
    found = points(study(around={"kind": "one-at-a-time", "axes": axes}))
    assert len(found) == 4 * 2
    changed = Counter(sum(p.levels[a] != CENTRE[a] for a in ("strategy", "size")) for p in found)
    assert changed == {0: 2, 1: 6}


AXES = {
    "system": list("abcde"),
    "foundation": list("xyz"),
    "strategy": list("ABCDEFG"),
    "size": [5, 20, 80],
    "seed": [1, 2],
}


@pytest.mark.parametrize("runs", [7, 30, 84])
def test_fractional_is_balanced(runs: int) -> None:
    """Levels of an axis differ by one in frequency at most; pairs of levels are even to two; no point twice."""
    found = design.fractional(AXES, runs, seed=3)
    assert len({tuple(p.values()) for p in found}) == runs
    for axis, levels in AXES.items():
        count = Counter(p[axis] for p in found)
        assert set(count) == set(levels) if runs >= len(levels) else True
        assert max(count.values()) - min(count.values()) <= 1
    for a, b in itertools.combinations(AXES, 2):
        pairs = Counter((p[a], p[b]) for p in found)
        even = runs / len(AXES[a]) / len(AXES[b])
        assert all(abs(pairs[x, y] - even) < 2 for x in AXES[a] for y in AXES[b]), (a, b)
    assert found == design.fractional(AXES, runs, seed=3) != design.fractional(AXES, runs, seed=4)


def test_fractional_finds_the_smallest_orthogonal_array() -> None:
    """Three axes of two levels in four runs: every pair of levels once (L4 of Taguchi)."""
    found = design.fractional({"a": [0, 1], "b": [0, 1], "c": [0, 1]}, 4, seed=0)
    for a, b in itertools.combinations("abc", 2):
        assert {(p[a], p[b]) for p in found} == set(itertools.product([0, 1], repeat=2))


def test_fractional_can_be_the_whole() -> None:
    found = design.fractional({"a": [0, 1, 2], "b": [0, 1], "c": [0, 1]}, 12, seed=0)
    assert len({tuple(p.values()) for p in found}) == 12


@pytest.mark.parametrize("runs", [6, 631])
def test_fractional_that_cannot_be(runs: int) -> None:
    with pytest.raises(RetemperError, match=f"cannot have {runs} runs"):
        design.fractional(AXES, runs, seed=0)


def test_points_that_coincide_are_one() -> None:
    """Of two designs, and where a strategy has no adapters, so that a rank means nothing."""
    ranks: dict[str, Any] = {"axes": {"strategy": ["naive", "lora"], "lora.rank": ["own", 16, 64]}}
    found = points(study(ranks=ranks, all={"axes": {"size": [50, 5]}}), {("naive", "lora.rank")})
    assert [(p.levels["strategy"], p.levels["lora.rank"], p.levels["size"]) for p in found] == [
        ("naive", "own", 50), ("lora", "own", 50), ("lora", 16, 50), ("lora", 64, 50), ("naive", "own", 5),
    ]  # fmt: skip
    assert found[0].designs == ("ranks", "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": {**CENTRE, "systme": "nacl"}}, "did you mean|Unknown axis 'systme'"),
        ({"centre": {"system": "nacl"}}, "foundation, strategy, size is missing"),
        ({"base": {"promotion": {}}}, "promotion is not shared"),
        ({"base": {"robustness": {"level": "quick"}}}, "base: robustness.level has no effect: level stands at the top"),
        ({"base": {"robustness": {"workers": 2}}}, "a run has one core"),
        ({"base": {"e0s": {"method": "average"}}}, "e0s.method has no effect: use the axis e0s"),
        ({"base": {"dataset": {"max_train": 5}}}, "use the axis size"),
        ({"centre": {**CENTRE, "params.e0s.method": "average"}}, "axis params.e0s.method: e0s.method has no effect"),
        ({"designs": {"a": {"axes": {"params.robustness.level": ["quick", "standard"]}}}}, "level stands at the top"),
        ({"designs": {"a": {"axes": {"params.robustness.metrics": ["rss"]}}}}, "metrics stand at the top"),
        ({"designs": {"a": {"axes": {"params.robustness.seeds": [1, 2]}}}}, "use the axis seed"),
        ({"designs": {"a": {"axes": {"params.sweep.trials": [4]}}}}, "sweep is not shared by runs"),
        ({"designs": {"a": {"axes": {"size": [5, 5]}}}}, "each once"),
        ({"designs": {"a": {"axes": {"size": [5]}, "runs": 3}}}, "fractional"),
        ({"designs": {"a": {"kind": "fractional", "axes": {"size": [5, 6]}}}}, "fractional"),
        ({"budget": {"cpu_hours": 1, "gpu_hours": 1}}, "cpu_hours or gpu_hours"),
        ({"metric": ["rss"]}, "metrics"),
        ({"metrics": ["rsss"]}, "did you mean 'rss'"),
        ({"designs": {"a": {"axes": {"params.finetune.epoch": [3]}}}}, "did you mean 'epochs'"),
        ({"base": {"finetune": {"epoch": 3}}}, "Unknown setting of finetune .base. 'epoch'"),
        ({"base": {"dataset": {"valid": 2}}}, "line 3: valid is wrong"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = {"centre": CENTRE, "designs": {"all": {"axes": {"size": [5, 50]}}}, **change}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RetemperError, match=message):
        load(tmp_path / "some.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_of_the_repository(path: Path) -> None:
    """Every study expands to valid settings, without a point or a key twice."""
    found = plan.runs(load(path), ROOT)
    assert len({tuple(map(repr, run.levels.values())) for run in found}) == len(found)
    missing = [file for run in found for file in run.settings.dataset.all_files if not (ROOT / file).is_file()]
    if missing:
        pytest.skip(f"{missing[0]} is not there")
    assert len({run.key for run in found}) == len(found)
    assert all(run.settings.strategies == [run.levels["strategy"]] for run in found)


def test_levels_reach_the_settings() -> None:
    """Sizes, E0s, factors, values and settings of params.yaml; what a strategy lacks stays out."""
    axes = {
        "strategy": ["naive", "lora"], "training.lr": ["own", "x10", 2e-3], "lora.rank": [16],
        "params.finetune.epochs": ["own", 7],
    }  # fmt: skip
    made = study(all={"axes": {**axes, "size": ["all", 5], "e0s": ["average"]}})
    found = {tuple(run.levels.values()): run for run in plan.runs(made, ROOT)}
    assert len(found) == 2 * 3 * 2 * 2
    run = next(
        r for r in found.values() if r.name == "lora" and r.levels["training.lr"] == "x10" and r.levels["size"] == 5
    )
    assert run.strategy.training.lr == pytest.approx(0.1) and run.strategy.lora and run.strategy.lora.rank == 16
    assert run.settings.dataset.max_train == 5 and run.settings.e0s.method == "average"
    assert plan.values(run)["training.lr"] == pytest.approx(0.1)
    other = next(r for r in found.values() if r.name == "naive" and r.levels["params.finetune.epochs"] == 7)
    assert other.settings.finetune.epochs == 7 and other.levels["lora.rank"] == "own"
    assert plan.values(other) == {"training.lr": 1e-3, "lora.rank": None, "params.finetune.epochs": 7}


def test_values_are_those_that_the_run_has(tmp_path: Path) -> None:
    """1e-3 is a number as 0.001 is, and equal to the strategy's own."""
    (tmp_path / "levels.yaml").write_text("levels: [own, 1e-3, 2.0e-3]")
    levels = read_yaml(tmp_path / "levels.yaml")["levels"]
    found = plan.runs(study(all={"axes": {"training.lr": levels, "training.clip_grad": [None]}}), ROOT)
    assert [plan.values(run) for run in found] == [
        {"training.lr": lr, "training.clip_grad": None} for lr in (1e-3, 1e-3, 2e-3)
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"training.lrr": [1e-3]}, "no strategy in it has the setting training.lrr"),
        ({"training.lr": [-1.0]}, "training.lr is wrong"),
        ({"system": ["nacll"]}, "did you mean 'nacl'"),
        ({"strategy": ["naiv"]}, "did you mean 'naive'"),
        ({"foundation": ["minni"]}, "did you mean 'mini'"),
        ({"e0s": ["averaged"]}, "e0s.method"),
        ({"training.optimizer": ["x10"]}, "which has no multiples"),
    ],
)
def test_levels_that_do_not_exist(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(RetemperError, match=message):
        plan.runs(study(all={"axes": axes}), ROOT)
