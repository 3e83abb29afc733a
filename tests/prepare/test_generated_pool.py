"""Structures made for a foundation's elements: which, how near, at what volume, and when none can be made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii
from shipped_sets import MINI

from retemper.core.errors import RetemperError
from retemper.data.geometry import neighbours
from retemper.models import predict
from retemper.prepare.generated_pool import MAX_FORCE, SCALES, at_lowest_energy, crystal, generate

ELEMENTS = (1, 6, 8, 11, 17)
PROTOTYPES = {
    (11,): ("sc", "bcc", "fcc", "hcp", "diamond"),
    (11, 17): ("rocksalt", "cesiumchloride", "zincblende", "wurtzite", "fluorite", "antifluorite", "L1_2"),
    (11, 22, 8): ("perovskite",),
}


def by_foundation(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    predicted = predict.predict(MINI, frames, dtype="float32", backend="torch")
    return predicted.energy, np.array([np.linalg.norm(forces, axis=1).max() for forces in predicted.forces])


def calm(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """A foundation that finds the largest cell best and nothing absurd."""
    return np.array([-abs(np.linalg.det(atoms.cell.array)) for atoms in frames]), np.zeros(len(frames))


@pytest.fixture(scope="module")
def made() -> list[Atoms]:
    return generate(ELEMENTS, 43, by_foundation, seed=3)


def test_every_family_has_its_share_of_the_elements_alone(made: list[Atoms]) -> None:
    assert Counter(atoms.info["config_type"] for atoms in made) == {
        "crystal": 11, "disordered": 11, "molecule": 11, "pair": 10,
    }  # fmt: skip
    assert set(np.concatenate([atoms.numbers for atoms in made]).tolist()) <= set(ELEMENTS)
    periodic = {atoms.info["config_type"] for atoms in made if atoms.pbc.any()}
    assert periodic == {"crystal", "disordered"}
    assert not any(set(atoms.info) - {"config_type", "group"} or atoms.calc for atoms in made)


def test_the_foundation_finds_none_absurd(made: list[Atoms]) -> None:
    assert by_foundation(made)[1].max() <= MAX_FORCE


def test_disordered_cells_and_clusters_keep_their_atoms_apart(made: list[Atoms]) -> None:
    disordered = [atoms for atoms in made if atoms.info["config_type"] == "disordered"]
    assert all(len(neighbours(atoms, 0.8)[0]) == 0 for atoms in disordered)


def test_structures_of_one_origin_are_one_group(made: list[Atoms]) -> None:
    groups = defaultdict(list)
    for atoms in made:
        groups[atoms.info["group"]].append(atoms)
    assert len(groups) > 15
    crystals = [frames for name, frames in groups.items() if frames[0].info["config_type"] == "crystal"]
    assert max(map(len, crystals)) == 4
    assert all(len({frozenset(atoms.symbols) for atoms in frames}) == 1 for frames in crystals)


def test_the_same_seed_makes_the_same_structures_and_another_makes_others(made: list[Atoms]) -> None:
    again, other = generate(ELEMENTS, 12, calm, seed=3), generate(ELEMENTS, 12, calm, seed=4)
    assert generate(ELEMENTS, 12, calm, seed=3) == again
    assert other != again


@pytest.mark.parametrize(("elements", "prototype"), [(e, p) for e, names in PROTOTYPES.items() for p in names])
def test_neighbours_in_a_prototype_touch(elements: tuple[int, ...], prototype: str) -> None:
    atoms = crystal(elements, prototype)
    first, second, distance, _ = neighbours(atoms, 1.6)
    sums = covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]]
    assert 0.7 < (distance / sums).min() < 1.35  # of unlike radii, the larger ones come nearer


@pytest.mark.parametrize("prototype", ["rocksalt", "cesiumchloride", "zincblende"])
def test_coordination_is_that_of_the_prototype(prototype: str) -> None:
    atoms = crystal((11, 17), prototype)
    first, _, distance, _ = neighbours(atoms, 1.3)
    nearest = first[distance < distance.min() * 1.01]
    assert (nearest == 0).sum() == {"rocksalt": 6, "cesiumchloride": 8, "zincblende": 4}[prototype]


def test_the_volume_is_that_of_the_lowest_energy() -> None:
    salt = at_lowest_energy(crystal((11, 17), "rocksalt"), by_foundation)
    constants = np.linspace(5.0, 6.6, 81)
    scan = by_foundation([bulk("NaCl", "rocksalt", a=a) for a in constants])[0]
    best = constants[np.argmin(scan)]
    step = SCALES[1] - SCALES[0]
    assert abs((4 * salt.get_volume()) ** (1 / 3) - best) < 0.6 * step * best


def test_without_molecules_of_the_elements_the_other_families_fill_up() -> None:
    assert Counter(atoms.info["config_type"] for atoms in generate((12, 29), 9, calm)) == {
        "crystal": 3, "disordered": 3, "pair": 3,
    }  # fmt: skip


def test_a_foundation_that_finds_all_absurd_is_said() -> None:
    def absurd(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(frames)), np.full(len(frames), np.nan)

    with pytest.raises(RetemperError) as caught:
        generate(ELEMENTS, 8, absurd)
    assert caught.value.got == "0 of 144"
