"""From axes to points: full, one-at-a-time and fractional designs. Pure functions, the same for the same input.

A fractional design takes a part of the full one in which every level of an axis is as frequent as every other, and
so, as far as the number of runs allows, is every pair of levels of two axes: then main effects can be told apart
(orthogonal arrays of strength two: Hedayat, Sloane, Stufken, Orthogonal Arrays, 1999, chapter 1). Arrays exist for
few sizes only, so the balance is searched by exchanges (after Cook, Nachtsheim, Technometrics 22, 315, 1980).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retemper.core.errors import RetemperError
from retemper.study.spec import OWN, Design, Level, Study

EXCHANGES = 400  # tried for each run of a fractional design
Levels = dict[str, Level]


@dataclass(frozen=True)
class Point:
    """A level of every axis, and the designs that have it."""

    levels: Levels
    designs: tuple[str, ...]


def points(study: Study, lacks: Callable[[str, str], bool]) -> list[Point]:
    """All points of a study, each once, in the order of its designs.

    Parameters
    ----------
    study
        Axes, centre and designs.
    lacks
        Whether a strategy (first) has no setting of a dotted name (second): the axis is then put to `OWN`, so that
        a rank of adapters does not multiply the runs of strategies without adapters.
    """
    entries: dict[tuple[tuple[str, str], ...], tuple[Levels, list[str]]] = {}
    for name, design in study.designs.items():
        for levels in design_points(design, study.middle(), name):
            strategy = str(levels["strategy"])
            levels = {a: OWN if "." in a and lacks(strategy, a) else level for a, level in levels.items()}
            identity = tuple((axis, repr(level)) for axis, level in levels.items())
            designs = entries.setdefault(identity, (levels, []))[1]
            if name not in designs:
                designs.append(name)
    return [Point(levels, tuple(designs)) for levels, designs in entries.values()]


def design_points(design: Design, centre: Levels, name: str) -> list[Levels]:
    """The points of one design.

    Raises
    ------
    RetemperError
        A fractional design that asks for more runs than the full one has, or for too few to have every level.
    """
    if design.kind == "full":
        changes = full(design.axes)
    elif design.kind == "one-at-a-time":
        changes = one_at_a_time(design.axes, centre)
    else:
        assert design.runs is not None
        changes = fractional(design.axes, design.runs, design.seed, name)
    return [{**centre, **change} for change in changes]


def full(axes: Mapping[str, Sequence[Level]]) -> list[Levels]:
    """Every combination of levels."""
    return [dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())]


def one_at_a_time(axes: Mapping[str, Sequence[Level]], centre: Levels) -> list[Levels]:
    """The centre, and each level of each axis with the others at the centre; all of it with every seed.

    Seeds repeat, they are no treatment: with one axis at a time and one seed there would be nothing to compare with.
    """
    seeds = list(axes.get("seed", [centre["seed"]]))
    changes: list[Levels] = [{}]
    for axis, levels in axes.items():
        if axis != "seed":
            changes += [{axis: level} for level in levels if level != centre[axis]]
    return [{**change, "seed": seed} for change in changes for seed in seeds]


def fractional(axes: Mapping[str, Sequence[Level]], runs: int, seed: int, name: str = "fractional") -> list[Levels]:
    """`runs` different combinations, balanced over the levels of every axis and over pairs of levels."""
    sizes = [len(levels) for levels in axes.values()]
    largest, smallest = math.prod(sizes), max(sizes)
    if not smallest <= runs <= largest:
        raise RetemperError(
            f"Design {name} cannot have {runs} runs.",
            expected=f"{smallest} (every level once) to {largest} (all combinations)",
            fix="change `runs`, or make the design full",
        )
    rng = np.random.default_rng(seed)
    columns = np.stack([rng.permutation(np.resize(rng.permutation(size), runs)) for size in sizes], axis=1)
    balance(columns, sizes, rng)
    order = np.lexsort(columns.T[::-1])
    names, levels = list(axes), list(axes.values())
    return [{names[k]: levels[k][row[k]] for k in range(len(names))} for row in columns[order]]


def balance(columns: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> None:
    """Exchange entries within columns [runs, axes] in place: no row twice, then pairs of levels even.

    What is made small is the sum over pairs of axes of the squared deviations of the pairs' counts from even ones,
    with a weight on repeated rows that no gain in balance outweighs.
    """
    runs, axes = columns.shape
    tables = {
        (a, b): np.zeros((sizes[a], sizes[b])) - runs / (sizes[a] * sizes[b])
        for a, b in itertools.combinations(range(axes), 2)
    }
    for (a, b), table in tables.items():
        np.add.at(table, (columns[:, a], columns[:, b]), 1)
    rows: dict[tuple[int, ...], int] = {}
    for row in columns:
        rows[tuple(row.tolist())] = rows.get(tuple(row.tolist()), 0) + 1
    tries = 0
    while tries < EXCHANGES * runs or any(count > 1 for count in rows.values()):
        tries += 1
        if tries > 100 * EXCHANGES * runs:
            raise AssertionError("no design without repeated runs was found")
        i, j, axis = int(rng.integers(runs)), int(rng.integers(runs)), int(rng.integers(axes))
        if columns[i, axis] == columns[j, axis]:
            continue
        before, after = _swap(columns, i, j, axis, tables, rows)
        if after > before:
            _swap(columns, i, j, axis, tables, rows)  # back


def _swap(
    columns: np.ndarray,
    i: int,
    j: int,
    axis: int,
    tables: dict[tuple[int, int], np.ndarray],
    rows: dict[tuple[int, ...], int],
) -> tuple[float, float]:
    """Exchange two entries of a column; the part of the imbalance that this touches, before and after."""
    touched = {pair: table for pair, table in tables.items() if axis in pair}
    weight = float(4 * len(columns) * len(columns[0]))

    def cost() -> float:
        repeated = sum(rows.get(tuple(columns[k].tolist()), 0) - 1 for k in (i, j))
        return weight * repeated + float(sum((table**2).sum() for table in touched.values()))

    before = cost()
    for k in (i, j):
        _count(columns[k], -1, touched, rows)
    columns[i, axis], columns[j, axis] = columns[j, axis], columns[i, axis]
    for k in (i, j):
        _count(columns[k], 1, touched, rows)
    return before, cost()


def _count(
    row: np.ndarray, step: int, tables: dict[tuple[int, int], np.ndarray], rows: dict[tuple[int, ...], int]
) -> None:
    key = tuple(row.tolist())
    rows[key] = rows.get(key, 0) + step
    if not rows[key]:
        del rows[key]
    for (a, b), table in tables.items():
        table[row[a], row[b]] += step
