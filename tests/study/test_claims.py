"""Claims: shown where the effect is planted, refuted where the opposite is, undecided without runs; no false alarms."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats
from study_tables import levels, table

from retemper.evaluation.statistics import log_ratio
from retemper.study import claims, groups, paired_effects, variance, verdicts

FOLDER = ROOT / "platform/retemper/study/claims"
UP, DOWN = 0.4, -0.4  # of a logarithm

# By claim: what makes it true, planted as {column: {(axis, level): change of the logarithm}}.
PLANTED: dict[str, dict[str, dict[tuple[str, Any], float]]] = {
    "better_than_scratch": {
        "target_force_rmse": {("strategy", "scratch"): UP},
        "target_energy_rmse": {("strategy", "scratch"): UP},
    },
    "e0_reestimation": {"target_energy_rmse": {("e0s", "average"): UP}, "e0_error": {("e0s", "average"): UP}},
    "freezing": {
        "target_force_rmse": {("strategy", "freeze-6"): UP},
        "retention_force_rmse": {("strategy", "freeze-5"): UP},
    },
    "lora_rank": {"retention_force_rmse": {("lora.rank", 64): DOWN}},
    "naive_in_domain": {"target_force_rmse": {("strategy", "naive"): DOWN}},
    "prerequisites": {
        "target_force_rmse": {("foundation", "mini"): 3 * DOWN},
        "target_energy_rmse": {("foundation", "mini"): 3 * DOWN},
    },
    "pseudolabels": {
        "retention_force_rmse": {("strategy", "pseudolabel-replay"): DOWN / 4},
        "target_force_rmse": {("strategy", "pseudolabel-replay"): DOWN / 4},
    },
    "replay_learning_rate": {"replay_head_force_rmse": {("training.lr", "x10"): UP}},
    "replay_lora": {"target_force_rmse": {("strategy", "replay-lora"): UP}},
    "replay_retention": {"retention_force_rmse": {("strategy", "naive"): UP}},
    "replay_wall": {},
}


def points() -> list[dict[str, Any]]:
    """A study that could decide every claim."""
    usual = {"training.lr": "own", "lora.rank": "own"}
    found = [{**p, **usual} for p in levels()]
    found += [{**p, **usual} for p in levels(e0s=("average",), strategy=("naive",))]
    found += [{**p, **usual} for p in levels(foundation=("narrow",), strategy=("naive", "replay", "lora"), size=(20,))]
    found += [{**p, **usual, "training.lr": "x10"} for p in levels(strategy=("replay",))]
    return found + [{**p, **usual, "lora.rank": 64} for p in levels(strategy=("lora",))]


def alone(claim: str, sign: float, rng: np.random.Generator) -> pd.DataFrame:
    """A table with the effect of one claim alone, or its opposite."""
    effects = {c: {level: sign * x for level, x in changes.items()} for c, changes in PLANTED[claim].items()}
    walls = {"naive": 20.0} if sign > 0 else {"naive": 95.0, "replay": 20.0}
    made = table(points(), rng, effects, walls=walls if claim == "replay_wall" else None, noise=0.02)
    made.loc[made["training.lr"] == "x10", "value of training.lr"] = 1e-3
    return made


@pytest.mark.parametrize("name", claims.names())
def test_contract(name: str) -> None:
    """Sentence, source and rule are there; claims import no other claim; an empty table is undecided."""
    module = claims.load(name)
    assert module.CLAIM and module.PAPER and len(module.__doc__) > 100 and "hown when" in module.__doc__
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [m for m in modules if m.startswith("retemper.study.claims")]
    empty = table(points()[:1], np.random.default_rng(0)).iloc[:0]
    found = module.judge(empty)
    assert found.verdict == "undecided" and found.parts[0].note
    assert name in PLANTED  # and so the tests below cover it


@pytest.mark.parametrize("name", claims.names())
def test_planted_effects(name: str) -> None:
    """The effect shows; its opposite is refuted; one seed and system decide nothing."""
    module = claims.load(name)
    shown = module.judge(alone(name, 1.0, np.random.default_rng(1)))
    assert shown.verdict == "shown", shown
    if name == "prerequisites":  # whose opposite is a strategy that matters more
        strategy = {("strategy", "replay"): 1.2, ("strategy", "lora"): -1.2}
        both = {"target_force_rmse": strategy, "target_energy_rmse": strategy}
        refuted = module.judge(table(points(), np.random.default_rng(2), both))
    else:
        refuted = module.judge(alone(name, -3.0 if name == "pseudolabels" else -1.0, np.random.default_rng(2)))
    assert refuted.verdict == "refuted", refuted
    few = alone(name, 1.0, np.random.default_rng(1))
    few = few[(few["seed"] == 1) & (few["system"] == "nacl") & (few["size"] == 20)]
    assert module.judge(few).verdict == "undecided"


def test_failed_and_waiting_runs_do_not_count() -> None:
    made = alone("better_than_scratch", 1.0, np.random.default_rng(1))
    made.loc[made["strategy"] == "scratch", "state"] = "failed"
    assert claims.load("better_than_scratch").judge(made).verdict == "undecided"


# ------------------------------------------------------------------ false alarms


@pytest.mark.parametrize("between", [0.0, 0.3])
def test_level_of_the_intervals(between: float) -> None:
    """Without an effect the 95 % interval excludes zero in about 5 of 100 tables, whether systems differ or not."""
    rng, outside, tables = np.random.default_rng(5), 0, 300
    some = levels(strategy=("naive", "replay"), size=(20,), seed=(1, 2, 3))
    for _ in range(tables):
        found = compared(table(some, rng, between=between))
        outside += found.low > 0 or found.high < 0
    low, high = stats.binom.ppf([0.001, 0.999], tables, 0.05)
    assert low <= outside <= high, outside


def compared(made: pd.DataFrame) -> paired_effects.Effect:
    found = paired_effects.estimate(paired_effects.pairs(made, "strategy", "naive", "replay"), "target_force_rmse")
    assert found is not None
    return found


@pytest.mark.parametrize("systems", [("nacl",), ("nacl", "ice")])
@pytest.mark.parametrize("noise", [0.002, 0.2])
def test_one_set_of_structures_is_not_the_world(systems: tuple[str, ...], noise: float) -> None:
    """Two equally good strategies that err on different groups: all seeds agree which one is better here.

    Over seeds alone nearly every interval excludes zero where seeds scatter little.
    """
    rng, outside, tables = np.random.default_rng(6), 0, 100
    some = levels(system=systems, strategy=("naive", "replay"), size=(20, 80), seed=(1, 2, 3))
    for _ in range(tables):
        made = table(some, rng, noise=noise, structures=0.3)
        found = compared(made)
        assert found.decides and found.over == f"{6 * len(systems)} groups of structures and seeds"
        outside += found.low > 0 or found.high < 0
    assert outside <= stats.binom.ppf(0.999, tables, 0.05), outside


def test_without_groups_few_systems_decide_nothing() -> None:
    """All seeds of one system say the same, and nothing is known of other structures: no verdict either way."""
    for change in (UP, DOWN):
        effects = {column: {("strategy", "scratch"): change} for column in ("target_force_rmse", "target_energy_rmse")}
        some = levels(system=("nacl",), strategy=("naive", "scratch"))
        blind = claims.load("better_than_scratch").judge(table(some, np.random.default_rng(0), effects))
        assert blind.verdict == "undecided" and "seeds alone" in blind.parts[0].note
        made = table(some, np.random.default_rng(0), effects, structures=0.02)
        seen = claims.load("better_than_scratch").judge(made)
        assert seen.verdict == ("shown" if change == UP else "refuted")


def test_settings_whose_seeds_scatter_differently_are_not_pooled() -> None:
    """Seeds scatter by 0.2 % at size 20 and by 20 % at 80: the quiet ones do not make a noisy difference sure."""
    rng, outside, tables = np.random.default_rng(7), 0, 100
    some = levels(system=("nacl",), strategy=("naive", "replay"), size=(20, 80), seed=(1, 2, 3))
    for _ in range(tables):
        made = table(some, rng, noise=0.002, structures=0.001)
        loud = (made["size"] == 80) * 0.2 * rng.normal(size=len(made))
        made["target_force_rmse"] *= np.exp(loud)
        found = compared(made)
        outside += found.low > 0 or found.high < 0
    assert outside <= stats.binom.ppf(0.999, tables, 0.05), outside


def test_claims_without_effects() -> None:
    """No effect anywhere: a claim of a difference is shown in hardly any of twenty tables."""
    shown: Counter[str] = Counter()
    for seed in range(20):
        made = table(points()[:], np.random.default_rng(100 + seed), between=0.1, noise=0.1)
        made.loc[made["training.lr"] == "x10", "value of training.lr"] = 1e-3
        shown.update(name for name, found in claims.judgements(made).items() if found.verdict == "shown")
    differences = set(claims.names()) - {"naive_in_domain", "pseudolabels"}  # these claim that there is none
    assert all(shown[name] <= 2 for name in differences), shown  # P(3 or more of 20) < 0.2 % at 2.5 %


def test_counting_errors_count() -> None:
    """All seeds agree on 40 % against 60 % of 20 curves: the interval still is that of two shares of 20."""
    made = table(levels(system=("nacl",), strategy=("naive", "replay"), size=(20,)), np.random.default_rng(0))
    made["short_range"] = made["strategy"].map({"naive": 40.0, "replay": 60.0})
    made["short_range_n"] = 20
    found = paired_effects.estimate(paired_effects.pairs(made, "strategy", "naive", "replay"), "short_range", "points")
    assert found is not None and found.effect == pytest.approx(20)
    share = (8 + 1) / 22, (12 + 1) / 22
    deviation = 100 * np.sqrt(sum(p * (1 - p) / 20 for p in share))
    assert found.high - found.effect == pytest.approx(stats.norm.ppf(0.975) * deviation, rel=0.01)
    assert found.over == "20 curves and seeds" and found.decides


# ------------------------------------------------------------------ against SciPy and by hand


def test_intervals_are_students() -> None:
    """Five systems: the t interval of their means. One, seeds that agree: that of the paired groups."""
    made = table(levels(strategy=("naive", "replay")), np.random.default_rng(3), between=0.2)
    log = np.log(made.set_index(["strategy", "system", "size", "seed"])["target_force_rmse"])
    difference = log["replay"] - log["naive"]
    found = paired_effects.estimate(paired_effects.pairs(made, "strategy", "naive", "replay"), "target_force_rmse")
    expected = stats.ttest_1samp(difference.groupby("system").mean(), 0).confidence_interval()
    assert found is not None and (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.pairs, found.systems, found.over) == (30, 5, "systems")
    one = table(
        levels(system=("ice",), strategy=("naive", "replay")), np.random.default_rng(3), noise=0.0, structures=0.1
    )
    found, cells = compared(one), one.groupby("strategy")["target_force_rmse_groups"].first().map(groups.squares)
    alone = log_ratio(cells["replay"][:, 1:], cells["naive"][:, 1:], 0.5).interval(0.975)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), rel=0.01)


def test_variance_by_hand() -> None:
    """A balanced 2 x 3 layout with two repetitions: sums of squares from the means, as any textbook has them."""
    rows = pd.DataFrame([{"a": a, "b": b, "seed": s} for a in "xy" for b in "uvw" for s in (1, 2)])
    y = np.array([1.0, 2.0, 4.0, 5.0, 6.0, 7.5, 3.0, 2.5, 7.0, 8.0, 9.0, 9.5])
    mean = y.mean()
    square = {
        axis: sum(len(own) * (y[own.index].mean() - mean) ** 2 for _, own in rows.groupby(axis)) for axis in ("a", "b")
    }
    total = float(((y - mean) ** 2).sum())
    residual = (total - square["a"] - square["b"]) / (11 - 1 - 2)
    found = variance.parts(rows, ["a", "b"], y)
    assert found is not None
    for axis, freedom in (("a", 1), ("b", 2)):
        assert found[axis] == pytest.approx((square[axis] - freedom * residual) / total)


def test_variance_of_noise_is_not_shared_out() -> None:
    """Nothing planted: the shares of 200 tables are zero on average, however many levels an axis has."""
    rng = np.random.default_rng(8)
    rows = pd.DataFrame({"a": rng.integers(0, 7, 60), "b": rng.integers(0, 2, 60)})
    shares = [found for _ in range(200) if (found := variance.parts(rows, ["a", "b"], rng.normal(size=60)))]
    for axis in ("a", "b"):
        values = [found[axis] for found in shares]
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_axes_that_cannot_be_told_apart() -> None:
    """Two axes that always change together: no shares, rather than arbitrary ones."""
    rows = pd.DataFrame({"a": [0, 1] * 10, "b": [5, 6] * 10})
    assert variance.parts(rows, ["a", "b"], np.arange(20.0)) is None


def test_verdicts() -> None:
    """Shown above zero, refuted below the smallest effect worth speaking of (even above zero), undecided between."""

    def made(low: float, high: float) -> paired_effects.Effect:
        return paired_effects.Effect((low + high) / 2, low, high, "log", 9, 3, "systems", 3)

    assert [verdicts.more("", made(*x)).verdict for x in ((0.01, 0.3), (-0.1, 0.04), (0.01, 0.02), (-0.1, 0.3))] == [
        "shown", "refuted", "refuted", "undecided",
    ]  # fmt: skip
    assert [verdicts.not_worse("", made(*x)).verdict for x in ((-1, 0.04), (0.06, 0.3), (0.04, 0.06))] == [
        "shown", "refuted", "undecided",
    ]  # fmt: skip
    parts = {v: verdicts.Part("", v, "", "") for v in ("shown", "refuted", "undecided")}  # type: ignore[arg-type]
    assert verdicts.together([parts["shown"], parts["refuted"], parts["undecided"]]).verdict == "refuted"
    assert verdicts.together([parts["shown"], parts["undecided"]]).verdict == "undecided"
