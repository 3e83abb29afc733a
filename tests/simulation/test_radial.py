"""Radial distributions against ASE's, and the earth mover's distance against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.geometry.rdf import get_rdf

from retemper.simulation.radial_distribution import distribution, earth_movers, histograms, middles

CELLS = {
    "orthorhombic": np.diag([9.0, 10.0, 11.0]),
    "triclinic": np.array([[9.0, 0.0, 0.0], [3.0, 9.5, 0.0], [-2.0, 2.5, 10.0]]),
}


def frames(cell: np.ndarray, number: int = 6) -> list[Atoms]:
    rng = np.random.default_rng(1)
    return [Atoms("O12H24", rng.random((36, 3)) @ cell + 5.0, cell=cell, pbc=True) for _ in range(number)]


def ours(made: list[Atoms], a: int, b: int, reach: float, bins: int) -> np.ndarray:
    numbers = made[0].numbers
    first, second = np.flatnonzero(numbers == a), np.flatnonzero(numbers == b)
    positions, cells = np.array([f.positions for f in made]), np.array([f.cell.array for f in made])
    counts = histograms(positions, cells, made[0].pbc, first, second, reach, bins)
    volumes = np.array([f.get_volume() for f in made])
    return distribution(counts, volumes, len(first), len(second), a == b, reach)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("pair", [(8, 8), (8, 1), (1, 1)])
def test_partial_distributions_are_ases(cell: np.ndarray, pair: tuple[int, int]) -> None:
    made = frames(cell)
    reach = 0.499 * (1 / np.linalg.norm(np.linalg.inv(cell), axis=0)).min()
    expected = get_rdf(made, reach, 60, elements=list(pair), no_dists=True)
    assert expected.max() > 1
    np.testing.assert_allclose(ours(made, *pair, reach, 60), expected, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_beyond_half_the_cell_all_images_count(cell: np.ndarray) -> None:
    made = frames(cell, 2)
    large = [atoms.repeat(3) for atoms in made]
    expected = get_rdf(large, 10.9, 50, elements=[8, 8], no_dists=True)
    np.testing.assert_allclose(ours(made, 8, 8, 10.9, 50), expected, atol=1e-10)


def test_clusters_and_slabs() -> None:
    atoms = Atoms("H3", [[0, 0, 0], [0.95, 0, 0], [0, 0, 3.05]], cell=[4, 4, 4], pbc=[True, False, False])
    index = np.arange(3)
    free = histograms(atoms.positions[None], atoms.cell.array[None], [False] * 3, index, index, 4.0, 40)[0]
    assert free.sum() == 3 and free[9] == 1 and free[30] == 1
    slab = histograms(atoms.positions[None], atoms.cell.array[None], atoms.pbc, index, index, 3.5, 35)[0]
    assert slab[9] == 1 and slab[30] == 2  # 4 - 0.95 along x is an image; along z there are none
    assert slab.sum() == 4


def test_uncorrelated_atoms_have_a_flat_distribution() -> None:
    rng = np.random.default_rng(0)
    made = [Atoms("H60", rng.random((60, 3)) * 10, cell=[10] * 3, pbc=True) for _ in range(60)]
    g = ours(made, 1, 1, 5.0, 10)
    np.testing.assert_allclose(g[3:], 1 - 1 / 60, atol=0.05)  # N - 1 others


def test_earth_movers_distance_of_a_shift_is_the_shift() -> None:
    r = middles(10.0, 1000)
    peak = np.exp(-((r - 3.0) ** 2) / 0.02)
    moved = np.exp(-((r - 3.4) ** 2) / 0.02)
    assert earth_movers(peak, 7 * moved, r) == pytest.approx(0.4, abs=1e-6)
