"""What a set of compositions can tell apart: rank, null space, and fixed ratios in words."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols


def composition_matrix(frames: Sequence[Atoms], numbers: Sequence[int]) -> np.ndarray:
    """Atoms of each element in each frame, [n_frames, n_elements], integers."""
    rows = [[np.count_nonzero(atoms.numbers == z) for z in numbers] for atoms in frames]
    return np.array(rows, dtype=int).reshape(len(frames), len(numbers))


def null_basis(counts: np.ndarray) -> np.ndarray:
    """Orthonormal basis [n_elements, k] of the directions that no frame's composition sees.

    By SVD of the triangular factor of `counts` [n_frames, n_elements], with the rank tolerance of
    `numpy.linalg.matrix_rank`.
    """
    triangular = np.linalg.qr(counts.astype(float), mode="r")
    _, singular, vectors = np.linalg.svd(triangular, full_matrices=True)
    tolerance = np.finfo(float).eps * max(counts.shape) * singular[0]
    return vectors[int((singular > tolerance).sum()) :].T


def relations(counts: np.ndarray) -> list[tuple[int, dict[int, int]]]:
    """Linear relations that every row of `counts` obeys, in whole numbers.

    Reduces the integer matrix counts^T counts [n, n], whose null space is that of `counts`, to
    row echelon form with exact fractions.

    Returns
    -------
    list of (column, {column: coefficient})
        One a dimension of the null space: sum of coefficient x count = 0 in every row. Coefficients
        have no common divisor, the first is positive. The column before them is the relation's
        own: it occurs in no other relation.
    """
    n = counts.shape[1]
    gram = counts.T.astype(object) @ counts.astype(object)
    rows = [[Fraction(int(value)) for value in row] for row in gram]
    pivots: list[int] = []
    for column in range(n):
        place = len(pivots)
        pivot_row = next((i for i in range(place, n) if rows[i][column] != 0), None)
        if pivot_row is None:
            continue
        rows[place], rows[pivot_row] = rows[pivot_row], rows[place]
        lead = rows[place][column]
        rows[place] = [value / lead for value in rows[place]]
        for i in range(n):
            if i != place and rows[i][column] != 0:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[place], strict=True)]
        pivots.append(column)
    result = []
    for free in sorted(set(range(n)) - set(pivots)):
        vector = {free: Fraction(1)}
        vector.update({pivot: -rows[i][free] for i, pivot in enumerate(pivots) if rows[i][free] != 0})
        scale = lcm(*(value.denominator for value in vector.values()))
        integers = {column: int(value * scale) for column, value in vector.items()}
        divisor = gcd(*integers.values()) * (1 if integers[min(integers)] > 0 else -1)
        result.append((free, {column: value // divisor for column, value in sorted(integers.items())}))
    return result


def fixed_ratios(counts: np.ndarray, numbers: Sequence[int]) -> tuple[list[str], list[int], list[int]]:
    """The relations of `relations` in words, and whom they concern.

    Parameters
    ----------
    counts
        [n_frames, n_elements], integers.
    numbers
        [n_elements] atomic numbers of the columns.

    Returns
    -------
    words
        Such as "H and O occur only as 2:1"; empty with full rank.
    concerned
        Atomic numbers whose share in an energy is not determined.
    settle
        Atomic numbers whose free atoms would determine all: one a missing rank.
    """
    all_relations = relations(counts)
    symbols = [chemical_symbols[z] for z in numbers]
    words: list[str] = []
    ratios: dict[int, dict[int, Fraction]] = {}  # partner column -> {column: its count a partner atom}
    for free, relation in all_relations:
        if len(relation) == 1:
            words.append(f"{symbols[free]} does not occur in the training frames")
        elif len(relation) == 2:
            partner = next(column for column in relation if column != free)
            ratios.setdefault(partner, {partner: Fraction(1)})[free] = Fraction(-relation[partner], relation[free])
        else:
            left_side = [_term(value, symbols[column]) for column, value in relation.items() if value > 0]
            right_side = [_term(-value, symbols[column]) for column, value in relation.items() if value < 0]
            words.append(f"{' + '.join(left_side)} = {' + '.join(right_side)} in every frame")
    for group in ratios.values():
        scale = lcm(*(value.denominator for value in group.values()))
        columns = sorted(group)
        names = [symbols[column] for column in columns]
        parts = ":".join(str(int(group[column] * scale)) for column in columns)
        words.append(f"{', '.join(names[:-1])} and {names[-1]} occur only as {parts}")
    concerned = sorted({column for _, relation in all_relations for column in relation})
    return words, [numbers[column] for column in concerned], [numbers[free] for free, _ in all_relations]


def _term(number: int, symbol: str) -> str:
    return f"n({symbol})" if number == 1 else f"{number} n({symbol})"
