"""How much work a run is, counted before it runs."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from retemper.records.result import Cost
from retemper.study.plan import Run
from retemper.systems.listing import size as count

FACTORS = ("system", "strategy", "foundation")


POOL_ATOMS = 10.0  # of a replayed structure; only the order of runs without any fit depends on it


def work(run: Run) -> tuple[float, ...]:
    """One, atoms trained on, replayed structures, robustness metrics."""
    settings, strategy = run.settings, run.strategy
    frames, atoms = structures(run)
    train = frames if settings.dataset.max_train is None else min(frames, settings.dataset.max_train)
    epochs = settings.finetune.epochs
    batch = min(train, strategy.training.batch_size or settings.finetune.batch_size)
    replayed = strategy.replay.batch_size * math.ceil(train / batch) if strategy.replay else 0
    return 1.0, epochs * train * atoms, float(epochs * replayed), float(len(settings.robustness.metrics))


def structures(run: Run) -> tuple[int, float]:
    """About how many training structures a system has, and their mean number of atoms."""
    dataset = run.settings.dataset
    frames, atoms = (sum(part) for part in zip(*(_size(run.root / f) for f in dataset.files), strict=True))
    share = 1 - dataset.valid - (0 if dataset.test_files else dataset.test)
    return max(1, round(frames * share)), atoms / max(1, frames)


def _size(path: Path) -> tuple[int, int]:
    """Frames and atoms of a file; where it is no extxyz, as if it had a hundred frames of twenty atoms."""
    if ".xyz" not in path.name and ".extxyz" not in path.name:
        return 100, 2000
    return _count(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _count(path: Path, mtime: int) -> tuple[int, int]:
    """`mtime` is there for the cache's key."""
    return count(path)


def cost(run: Run) -> Cost:
    """What a result keeps of the run, so that runs of other studies can be estimated from it."""
    system, strategy, foundation = (str(run.levels[axis]) for axis in FACTORS)
    return Cost(work=list(work(run)), system=system, strategy=strategy, foundation=foundation)
