"""How often the gates promote wrongly, and how often rightly: random models with known true errors.

    python -m benchmarks.gates             # tables of docs/registry.md; 20 minutes of one core

A trial makes a test set of groups of frames, a champion and candidates with `ratios` of its true error, each with its
seeds, and asks `retemper.promotion.verdict.decide`. Groups and frames differ in difficulty (log-normal, 0.35 each),
models in which frames they find hard (0.15, a share `correlation` of its variance by whole groups), seeds by `scatter`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from retemper.config.settings import Gate, Promotion
from retemper.promotion import verdict
from retemper.promotion.gates import References
from retemper.records.measures import Number
from retemper.registry.measurements import Errors, Measured

ATOMS = 20  # of a frame
GATES = [
    Gate(metric="target.force_rmse", max=1e6, by="value"),
    Gate(metric="target.force_rmse", relative_to="champion"),
]
UNLIKE = [0.07, 0.002, 0.01, 0.01, 0.02, 0.005, 0.005, 0.01, 0.002]  # scratch to naive, as measured on droplets
Levels = Sequence[float]


def test_set(random: np.random.Generator, groups: int, frames: int) -> np.ndarray:
    """How hard each frame is, [groups, frames]."""
    return np.asarray(np.exp(random.normal(0, 0.35, (groups, 1)) + random.normal(0, 0.35, (groups, frames))))


def recipe(
    random: np.random.Generator,
    name: str,
    levels: Levels,
    hard: np.ndarray,
    correlation: float = 0.3,
    heavy: bool = False,
) -> Measured:
    """A strategy whose seeds have errors near `levels` (meV/A); half of what models find hard is the strategy's."""

    def noise() -> np.ndarray:
        draw = (lambda shape: random.standard_t(2.5, shape)) if heavy else (lambda shape: random.normal(size=shape))
        by_group, by_frame = draw((len(hard), 1)), draw(hard.shape)
        return np.asarray(math.sqrt(correlation) * by_group + math.sqrt(1 - correlation) * by_frame)

    groups = [str(k) for k in np.repeat(np.arange(len(hard)), hard.shape[1])]
    shared = noise()
    frames = {}
    for seed, level in enumerate(levels, 1):
        own = np.clip(0.15 * (shared + noise()) / math.sqrt(2), -5, 5)
        force_sq = (level * hard * np.exp(own)) ** 2 * 3 * ATOMS
        frames[seed] = {"target": Errors(np.zeros(hard.size), force_sq.ravel(), np.full(hard.size, ATOMS), groups)}
    rmse = math.sqrt(frames[1]["target"].force_sq.mean() / (3 * ATOMS))
    numbers = {"target.force_rmse": Number(rmse, unit="meV/Å")}
    identity = {"target": "t", "retention": "r"}
    return Measured(name, 1, f"{name}-{random.integers(1 << 60)}", identity, numbers, frames)


def trial(
    random: np.random.Generator,
    *,
    ratios: Sequence[float],
    groups: int = 6,
    frames: int = 10,
    correlation: float = 0.3,
    heavy: bool = False,
    seeds: int = 2,
    scatter: Sequence[float] | float = 0.03,
    look: int = 1,
) -> str | None:
    """Who is promoted; `scatter` over seeds (of the log error): of all, or of each candidate and the champion."""
    hard = test_set(random, groups, frames)
    spread = [scatter] * (len(ratios) + 1) if isinstance(scatter, float) else list(scatter)

    def made(name: str, ratio: float, sigma: float) -> Measured:
        levels = 100 * ratio * random.lognormal(0, sigma, seeds)
        return recipe(random, name, levels.tolist(), hard, correlation, heavy)

    champion = made("champion", 1.0, spread[-1])
    candidates = {f"s{k}": made(f"s{k}", r, s) for k, (r, s) in enumerate(zip(ratios, spread, strict=False))}
    return _champion(candidates, champion, look)


def looks(random: np.random.Generator, rounds: int, groups: int = 6, frames: int = 10) -> bool:
    """Whether any of `rounds` equally good models, judged on the same frames one after the other, is promoted."""
    hard = test_set(random, groups, frames)
    champion = recipe(random, "champion", (100 * random.lognormal(0, 0.03, 2)).tolist(), hard)
    for look in range(1, rounds + 1):
        candidate = recipe(random, "naive", (100 * random.lognormal(0, 0.03, 2)).tolist(), hard)
        if _champion({"naive": candidate}, champion, look):
            return True
    return False


def _champion(candidates: dict[str, Measured], champion: Measured, look: int) -> str | None:
    options = Promotion(gates=GATES)
    return verdict.decide(candidates, References(None, champion), candidates, options, {}, look).champion


def share(trials: int, seed: int, **made: Any) -> str:
    """Share of trials that promote, in %."""
    random = np.random.default_rng(seed)
    return f"{100 * sum(trial(random, **made) is not None for _ in range(trials)) / trials:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=400)
    trials = parser.parse_args().trials
    print("Wrongly promoted, % (equal models)\n")
    print("| groups × frames | one candidate | strong correlation (0.8) | heavy tails | seven | eight unlike |")
    print("|---|---|---|---|---|---|")
    for groups, frames in ((6, 10), (4, 15), (3, 20), (12, 10)):
        size: dict[str, Any] = {"groups": groups, "frames": frames}
        cells = [
            share(trials, 1, ratios=[1.0], **size),
            share(trials, 2, ratios=[1.0], correlation=0.8, **size),
            share(trials, 3, ratios=[1.0], heavy=True, **size),
            share(trials // 2, 4, ratios=[1.0] * 7, **size),
            share(trials // 2, 5, ratios=[1.0] * 8, scatter=UNLIKE, **size),
        ]
        print(f"| {groups} × {frames} | {' | '.join(cells)} |", flush=True)
    random = np.random.default_rng(6)
    for groups in (6, 12):
        wrong = sum(looks(random, 10, groups) for _ in range(trials // 2))
        print(f"\nten looks, {groups} groups: {100 * wrong / (trials // 2):.1f} %", flush=True)
    print("\nRightly promoted, %, by true error over the champion's\n")
    ratios = (0.95, 0.9, 0.85, 0.8, 0.7, 0.5)
    print(f"| | {' | '.join(map(str, ratios))} |\n|{'---|' * (len(ratios) + 1)}")
    for title, made in (
        ("6 groups, 2 seeds", {"groups": 6}),
        ("12 groups, 2 seeds", {"groups": 12}),
        ("12 groups, 3 seeds", {"groups": 12, "seeds": 3}),
        ("30 groups, 3 seeds", {"groups": 30, "seeds": 3}),
        ("12 groups, 3 seeds, look 5", {"groups": 12, "seeds": 3, "look": 5}),
        ("12 groups, 3 seeds, quiet (0.5 %)", {"groups": 12, "seeds": 3, "scatter": 0.005}),
    ):
        cells = [share(trials // 2, 7, ratios=[ratio], **made) for ratio in ratios]
        print(f"| {title} | {' | '.join(cells)} |", flush=True)
    cells = [share(trials // 4, 8, ratios=[ratio] + [1.0] * 7, groups=12, seeds=3) for ratio in ratios]
    print(f"| 12 groups, 3 seeds, one of eight | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
