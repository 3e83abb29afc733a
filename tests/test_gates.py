"""Gates judge rightly: limits, missing metrics, paired comparison, and rates of wrong promotions over random trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from retemper.errors import RetemperError
from retemper.promotion import compare, gates, verdict
from retemper.promotion.gates import References
from retemper.promotion.history import Model
from retemper.promotion.measures import Errors, Measured, Number
from retemper.settings import Gate, Promotion, parse

FRAMES = 60  # of a test set; 20 atoms each
BETTER = Gate(metric="target.force_rmse", relative_to="champion")
ROOM = Gate(metric="target.force_rmse", max=1e6)


def model(
    levels: Sequence[float],
    *,
    strategy: str = "naive",
    hard: np.ndarray | None = None,
    seed: int = 0,
    scatter: float = 0.15,
    numbers: dict[str, Number] | None = None,
) -> Measured:
    """A model whose seed k has force RMSE near `levels[k]` meV/A; `hard` [n] says which frames are hard."""
    random = np.random.default_rng(seed)
    hard = np.ones(FRAMES) if hard is None else hard
    frames = {}
    for k, level in enumerate(levels):
        force_sq = (level * hard * random.lognormal(0.0, scatter, len(hard))) ** 2 * 60
        frames[k + 1] = {"target": Errors(random.normal(0.0, level / 20, len(hard)), force_sq)}
    rmse = math.sqrt(frames[1]["target"].force_sq.mean() / 60)
    found = {"target.force_rmse": Number(rmse, 0.9 * rmse, 1.1 * rmse, "meV/Å"), **(numbers or {})}
    return Measured(strategy, 1, f"{strategy}{seed}", {"target": "t", "retention": "r"}, found, frames)


def judged(candidate: Measured, gate: Gate, champion: Measured | None = None, **more: Any) -> gates.Outcome:
    recipes = {candidate.strategy: candidate}
    (outcome,) = gates.judge(candidate, [gate], References(None, champion), recipes, resamples=1000, **more)
    return outcome


# ------------------------------------------------------------------ limits


def test_absolute_limits() -> None:
    numbers = {"robustness.rss": Number(8.0, 4.0, 15.0, "%"), "robustness.md": Number(100.0, 70.0, 100.0, "%")}
    candidate = model([50.0], numbers=numbers)
    for gate, good in (
        (Gate(metric="robustness.rss", max=8.0), True),
        (Gate(metric="robustness.rss", max=7.9), False),
        (Gate(metric="robustness.md", min=100.0), True),
        (Gate(metric="robustness.md", min=100.1), False),
    ):
        outcome = judged(candidate, gate)
        assert outcome.passed is good and outcome.absolute
        assert (outcome.low, outcome.high) == (numbers[gate.metric].low, numbers[gate.metric].high)
    assert judged(candidate, Gate(metric="robustness.rss", max=7.9)).reason == "8 is above 7.9"


@pytest.mark.parametrize(
    "limit", [{"max": 1.0}, {"min": 1.0}, {"relative_to": "champion"}, {"relative_to": "foundation"}]
)
@pytest.mark.parametrize("metric", ["robustness.nve", "retention.force_rmse", "target.force_mse"])
def test_a_missing_metric_fails(metric: str, limit: dict[str, Any]) -> None:
    candidate, champion = model([50.0, 50.0]), model([90.0, 90.0], strategy="lora")
    references = References(champion, champion)
    gate = Gate(metric=metric, **limit)
    (outcome,) = gates.judge(candidate, [gate], references, {"naive": candidate}, resamples=1000)
    assert not outcome.passed and outcome.reason.startswith("missing")


def test_a_metric_that_could_not_be_measured_fails_with_its_reason() -> None:
    candidate = model([50.0], numbers={"robustness.rdf": Number(None, reason="no reference trajectory")})
    assert judged(candidate, Gate(metric="robustness.rdf", max=0.1)).reason == "missing: no reference trajectory"


def test_nothing_passes_by_default() -> None:
    candidate = model([50.0])
    none = References(None, None)
    for chosen in ([], [BETTER]):
        found = verdict.decide({"naive": candidate}, none, {"naive": candidate}, Promotion(gates=chosen), {})
        assert found.champion is None and found.challenger is None
        assert "nothing passes by default" in found.judged["naive"].failures()[-1]
    assert verdict.decide(
        {"naive": candidate}, none, {"naive": candidate}, Promotion(gates=[ROOM, BETTER]), {}
    ).champion


@pytest.mark.parametrize(
    "gate",
    [{}, {"max": 1, "min": 0}, {"max": 1, "relative_to": "champion"}, {"max": 1, "margin": 0.1}, {"maximum": 1}],
)
def test_gates_that_mean_nothing_are_refused(gate: dict[str, Any]) -> None:
    with pytest.raises(RetemperError):
        parse(Gate, {"metric": "target.force_rmse", **gate}, "params.yaml")


def test_obstacles_and_other_frames_fail() -> None:
    candidate, champion = model([50.0, 50.0]), model([90.0, 90.0], strategy="lora")
    other = Measured("lora", 1, "x", {"target": "other", "retention": "r"}, champion.numbers, champion.frames)
    assert "other target frames" in judged(candidate, BETTER, other).reason
    references = References(None, None, "the champion is not registered in this store")
    (outcome,) = gates.judge(candidate, [BETTER], references, {"naive": candidate}, resamples=1000)
    assert not outcome.passed and outcome.reason == references.obstacle


def test_one_seed_each_fails_over_seeds_and_can_be_judged_over_frames() -> None:
    candidate, champion = model([50.0]), model([90.0], strategy="lora")
    assert "spread over seeds is unknown" in judged(candidate, BETTER, champion).reason
    assert judged(candidate, BETTER.model_copy(update={"over": ["frames"]}), champion).passed


# ------------------------------------------------------------------ paired comparison


def test_pairing_sees_what_unpaired_intervals_hide() -> None:
    """Frames of very different difficulty: 5 % better on each frame is certain, though the intervals overlap widely."""
    hard = np.random.default_rng(3).lognormal(0.0, 1.0, FRAMES)
    champion = model([100.0, 100.0], strategy="lora", hard=hard, scatter=0.002)
    candidate = model([95.0, 95.0], hard=hard, seed=1, scatter=0.002)
    found = compare.over_frames(candidate.frames[1]["target"], champion.frames[1]["target"], "force_rmse", 0.95, 5000)
    assert found.value == pytest.approx(0.95, abs=0.005) and 0.94 < found.low < found.high < 0.96
    alone = np.sqrt(np.random.default_rng(0).multinomial(FRAMES, np.full(FRAMES, 1 / FRAMES), 2000) @ hard**2)
    assert np.std(alone) / np.mean(alone) > 0.1  # what one model's RMSE moves with other frames
    assert judged(candidate, BETTER, champion).passed


def test_interval_over_frames_is_the_delta_methods() -> None:
    """log of a ratio of means: variance of (a/mean a - b/mean b)/2 over n (delta method), for many frames."""
    random = np.random.default_rng(0)
    a, b = random.gamma(4.0, 1.0, 1000), random.gamma(4.0, 1.2, 1000)
    ours, theirs = Errors(np.zeros(1000), a), Errors(np.zeros(1000), b)
    found = compare.over_frames(ours, theirs, "force_rmse", 0.975, 20000)
    error = np.std((a / a.mean() - b / b.mean()) / 2) / np.sqrt(1000)
    centre = math.sqrt(a.mean() / b.mean())
    assert found.value == pytest.approx(centre)
    assert found.high == pytest.approx(centre * math.exp(1.96 * error), abs=1e-3)
    assert found.low == pytest.approx(centre * math.exp(-1.96 * error), abs=1e-3)


def test_over_seeds_is_students_t_when_frames_do_not_matter() -> None:
    """Identical frames: only seeds scatter, and the bound is t s sqrt(1/n + 1/m) (two-sample t, pooled)."""
    levels = {"naive": [90.0, 100.0, 95.0], "lora": [110.0, 100.0, 104.0]}
    errors = {n: [Errors(np.zeros(50), np.full(50, x**2)) for x in v] for n, v in levels.items()}
    spread = compare.pooled_spread(errors, "force_rmse")
    assert spread is not None and spread.freedom == 4
    found = compare.over_seeds(errors["naive"], errors["lora"], "force_rmse", 0.95, 200_000, spread)
    logs = {n: np.log(v) for n, v in levels.items()}
    pooled = math.sqrt((logs["naive"].var(ddof=1) + logs["lora"].var(ddof=1)) / 2)
    half = stats.t.ppf(compare.expanded(0.95, 50), 4) * pooled * math.sqrt(2 / 3)
    centre = float(logs["naive"].mean() - logs["lora"].mean())
    assert found.value == pytest.approx(math.exp(centre))
    assert math.log(found.high) == pytest.approx(centre + half, abs=2e-3)


def test_difference_of_shares_is_newcombes() -> None:
    """56/70 against 48/80, Newcombe 1998, table II, method 10: difference 0.2, interval 0.0524 to 0.3339."""
    wilson = [stats.binomtest(k, n).proportion_ci(0.95, method="wilson") for k, n in ((56, 70), (48, 80))]
    found = compare.difference(
        (56 / 70, wilson[0].low, wilson[0].high), (48 / 80, wilson[1].low, wilson[1].high), 0.975
    )
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_difference_of_intervals_of_another_level() -> None:
    """Normal estimates with the same standard errors: the level of their intervals makes no difference."""

    def estimate(value: float, error: float, level: float) -> tuple[float, float, float]:
        half = error * float(stats.norm.ppf(0.5 + level / 2))
        return value, value - half, value + half

    for levels in ((0.95, 0.95), (0.68, 0.95), (0.99, 0.5)):
        found = compare.difference(estimate(10.0, 0.3, levels[0]), estimate(8.0, 0.4, levels[1]), 0.95, levels)
        assert (found.low, found.high) == pytest.approx((2 - 0.5 * 1.644854, 2 + 0.5 * 1.644854), abs=1e-6)


def test_robustness_of_another_level_is_not_compared() -> None:
    champion = model([50.0], strategy="lora", numbers={"robustness.md": Number(90.0, 85.0, 95.0, "%")})
    candidate = model([50.0], numbers={"robustness.md": Number(99.0, 97.0, 100.0, "%")})
    gate = Gate(metric="robustness.md", relative_to="champion", better="higher")
    assert judged(candidate, gate, champion).passed
    identity = {**champion.identity, "robustness": "thorough: H O"}
    outcome = judged(candidate, gate, dataclasses.replace(champion, identity=identity))
    assert not outcome.passed and "measured otherwise (thorough: H O" in outcome.reason


def test_the_seed_that_stands_for_a_strategy_and_the_ranks() -> None:
    options = Promotion(gates=[ROOM, Gate(metric="robustness.md", min=90)])
    plain, tested = model([50.0]), model([50.0], numbers={"robustness.md": Number(95.0, 90.0, 99.0, "%")})
    assert verdict.pick_seed({1: tested, 2: tested}, {1: 0.2, 2: 0.1}, options) == (
        2,
        "lowest validation loss of 2 seeds",
    )
    chosen, why = verdict.pick_seed({1: tested, 2: plain, 3: plain}, {1: 0.3, 2: 0.1, 3: 0.2}, options)
    assert chosen == 1 and why == "lowest validation loss of the seeds with robustness.md (1 of 3 seeds)"
    candidates = {
        "worse": model([60.0], numbers=tested.numbers, strategy="worse"),
        "untested": model([10.0], strategy="untested"),
        "best": model([50.0], strategy="best", numbers={"robustness.md": tested.numbers["robustness.md"]}),
    }
    candidates["worse"].numbers["target.force_rmse"] = Number(60.0)
    judged_all = verdict.decide(candidates, References(None, None), candidates, options, {}).judged
    assert verdict.ranked(judged_all) == ["best", "worse", "untested"]


def test_margin_and_direction_of_metrics_without_frames() -> None:
    champion = model([50.0], strategy="lora", numbers={"robustness.md": Number(90.0, 85.0, 95.0, "%")})
    close = model([50.0], numbers={"robustness.md": Number(88.0, 83.0, 93.0, "%")})
    gate = Gate(metric="robustness.md", relative_to="champion", better="higher", margin=10.0)
    assert judged(close, gate, champion).passed  # 2 % lower, certain within 2 + 0.84 * 7.07 = 7.9
    assert not judged(close, gate.model_copy(update={"margin": 7.0}), champion).passed
    assert not judged(close, gate.model_copy(update={"better": "lower", "margin": 0.0}), champion).passed


def test_more_candidates_need_more_evidence() -> None:
    hard = np.random.default_rng(3).lognormal(0.0, 0.5, FRAMES)
    champion = model([100.0, 100.0], strategy="lora", hard=hard)
    candidate = model([96.0, 96.0], hard=hard, seed=1)
    one, ten = (judged(candidate, BETTER, champion, candidates=n).compared for n in (1, 10))
    assert one is not None and ten is not None and ten["high"] > one["high"]


# ------------------------------------------------------------------ random trials with known truth


def trial(random: np.random.Generator, ratios: Sequence[float], seeds: int = 2) -> str | None:
    """Who is promoted: the champion has true error 100, strategy i has `ratios[i]` times that.

    Frames differ in difficulty (log-normal, 0.5), models differ in which frames they find hard
    (0.15), seeds of a strategy scatter by 3 %.
    """
    hard = random.lognormal(0.0, 0.5, FRAMES)

    def made(strategy: str, ratio: float) -> Measured:
        levels = 100.0 * ratio * random.lognormal(0.0, 0.03, seeds)
        return model(levels.tolist(), strategy=strategy, hard=hard, seed=int(random.integers(1 << 31)))

    champion = made("champion", 1.0)
    recipes = {f"s{k}": made(f"s{k}", ratio) for k, ratio in enumerate(ratios)}
    options = Promotion(gates=[Gate(metric="target.force_rmse", max=1000.0), BETTER], resamples=1000)
    return verdict.decide(recipes, References(None, champion), recipes, options, {}).champion


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.90), (3, 0.95)])
def test_a_worse_model_never_becomes_champion_and_a_better_one_nearly_always_does(seeds: int, least: float) -> None:
    """100 trials: one candidate, truly worse by 2 to 50 % or truly better by 15 to 50 %, with equal chance."""
    random = np.random.default_rng(20261122)
    wrong = right = worse = better = 0
    for _ in range(100):
        if random.random() < 0.5:
            worse += 1
            wrong += trial(random, [random.uniform(1.02, 1.5)], seeds) is not None
        else:
            better += 1
            right += trial(random, [1.0 / random.uniform(1.15, 1.5)], seeds) is not None
    print(f"{seeds} seeds, worse: {wrong} of {worse} promoted; better: {right} of {better} promoted")
    assert worse + better == 100 and worse > 40
    assert wrong == 0
    assert right >= least * better


def test_the_rate_of_wrong_promotions_stays_below_what_was_asked_for() -> None:
    """Equal models, eight candidates: at most 5 % of the trials may promote any of them."""
    random = np.random.default_rng(5)
    wrong = sum(trial(random, [1.0] * 8) is not None for _ in range(100))
    print(f"eight equal candidates: {wrong} of 100 trials promoted one")
    assert stats.binomtest(wrong, 100, 0.05, alternative="greater").pvalue > 0.01


def test_barred_models_wait_for_a_person() -> None:
    candidate = model([50.0, 50.0])
    champion = model([90.0, 90.0], strategy="lora")
    options = Promotion(gates=[ROOM, BETTER])
    recipes = {"naive": candidate}
    assert verdict.decide(recipes, References(None, champion), recipes, options, {}).champion == "naive"
    known = Model(candidate.sha256, "naive", 1)
    found = verdict.decide(recipes, References(None, champion), recipes, options, {known: "rolled back"})
    assert found.champion is None and found.challenger == "naive"
    assert found.judged["naive"].failures() == ["rolled back"]
