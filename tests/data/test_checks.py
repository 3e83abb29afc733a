"""Checks of frames, the fit of energies per element, duplicates and conflicts."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data.checks import (
    check_elements,
    check_variation,
    energy_faults,
    find_duplicates,
    frame_fault,
    level_tags,
)
from retemper.data.duplicates import near_pairs
from retemper.data.energies_by_element import robust_fit
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.geometry import heights, neighbours

LIMITS = Dataset(files=["a"], level_of_theory="test")


def label(atoms: Atoms, energy: float = 0.0, source: str = "a:0") -> Atoms:
    atoms.info |= {ENERGY: energy, "source": source}
    atoms.arrays[FORCES] = np.zeros((len(atoms), 3))
    return atoms


def test_a_sound_frame_passes() -> None:
    assert frame_fault(label(molecule("CH3CH2OH")), LIMITS) is None
    assert frame_fault(label(bulk("NaCl", "rocksalt", a=5.64)), LIMITS) is None
    slab = bulk("Cu", cubic=True)
    slab.pbc = [True, True, False]
    assert frame_fault(label(slab), LIMITS) is None


def test_each_fault_is_named() -> None:
    def fault(change: str) -> str:
        atoms = label(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
        if change == "position":
            atoms.positions[0, 0] = np.nan
        elif change == "energy":
            atoms.info[ENERGY] = np.inf
        elif change == "force":
            atoms.arrays[FORCES][1, 1] = np.nan
        elif change == "stress":
            atoms.info[STRESS] = np.full(9, np.nan)
        elif change == "no cell":
            atoms.cell = None
        elif change == "flat":
            atoms.cell[2] = [0, 0, 0.3]
        elif change == "dense":
            atoms.set_cell([1.9, 1.9, 1.9])
        elif change == "large force":
            atoms.arrays[FORCES][[0, 1], 0] = 60, -60
        elif change == "net force":
            atoms.arrays[FORCES][:, 0] = 0.2
        elif change == "close":
            atoms.positions[1] = atoms.positions[0] + [0.9, 0, 0]
        return str(frame_fault(atoms, LIMITS))

    assert "positions or cell are not finite" in fault("position")
    assert "the energy is not finite" in fault("energy")
    assert "a force is not finite" in fault("force")
    assert "the stress is not finite" in fault("stress")
    assert "periodic without a cell" in fault("no cell")
    assert "0.30 A high" in fault("flat")
    assert "0.86 A^3 per atom" in fault("dense")
    assert "60.0 eV/A is above dataset.max_force (50)" in fault("large force")
    assert "net force of 0.200 eV/A per atom" in fault("net force")
    radii = covalent_radii[11] + covalent_radii[17]
    assert f"at 0.90 A, {0.9 / radii:.2f} times the sum of covalent radii" in fault("close")
    assert "no atoms" in str(frame_fault(label(Atoms()), LIMITS))


def test_atoms_near_their_own_images_are_found() -> None:
    """Two atoms 0.8 A apart only across the border of a skew cell."""
    cell = np.array([[5.0, 0, 0], [2.5, 4.0, 0], [0, 0, 6.0]])
    atoms = Atoms("C2", positions=[[0, 0, 0.1], [0, 0, -0.7] + cell[2]], cell=cell, pbc=True)
    assert "C-C at 0.80 A" not in str(frame_fault(label(atoms), LIMITS))  # 0.53 of the radii: above the limit
    strict = LIMITS.model_copy(update={"min_distance": 0.6})
    assert "C-C at 0.80 A" in str(frame_fault(atoms, strict))


def test_neighbours_against_brute_force() -> None:
    random = np.random.default_rng(0)
    cell = np.array([[4.0, 0.3, 0], [1.5, 4.2, 0.2], [-0.7, 0.4, 5.0]])
    atoms = Atoms("HCNaCl", positions=random.uniform(-3, 6, (4, 3)), cell=cell, pbc=[True, False, True])
    first, second, distance, _ = neighbours(atoms, 2.0)
    radii = covalent_radii[atoms.numbers]
    expected = []
    for i in range(4):
        for j in range(4):
            for n in range(-6, 7):
                for m in range(-6, 7):
                    gap = np.linalg.norm(atoms.positions[j] + n * cell[0] + m * cell[2] - atoms.positions[i])
                    if 1e-9 < gap < 2.0 * (radii[i] + radii[j]):
                        expected.append((i, j, round(float(gap), 6)))
    got = sorted(zip(first.tolist(), second.tolist(), distance.round(6).tolist(), strict=True))
    assert got == sorted(expected)
    assert len(got) > 10
    far = Atoms("H2", positions=[[0, 0, 0], [1e6, 0, 0]])
    assert len(neighbours(far, 2.0)[0]) == 0


def test_heights_of_a_skew_cell() -> None:
    """A right prism over a rhombus of side 4 and 60 degrees: 4 sin 60 between its sides."""
    cell = np.array([[4, 0, 0], [2, 2 * np.sqrt(3), 0], [0, 0, 7]])
    np.testing.assert_allclose(heights(cell), [4 * np.sin(np.pi / 3)] * 2 + [7])
    assert (heights(np.diag([3.0, 3.0, 0.0])) == 0).all()


def test_unknown_elements_are_listed() -> None:
    frames = [label(molecule("CH4")), label(molecule("SiH4")), label(molecule("PH3"))]
    with pytest.raises(RetemperError, match=r"Si \(1 frames\), P \(1 frames\)"):
        check_elements(frames, {"H", "C"}, "small")
    check_elements(frames, {"H", "C", "Si", "P"}, "large")


def test_placeholders_are_not_labels() -> None:
    frames = [label(molecule("CH4"), float(k)) for k in range(4)]
    with pytest.raises(RetemperError, match="All forces are zero"):
        check_variation(frames)
    frames[2].arrays[FORCES][0, 0] = 0.1
    check_variation(frames)
    for frame in frames:
        frame.info[ENERGY] = 0.0
    with pytest.raises(RetemperError, match="All energies are the same"):
        check_variation(frames)


def formulas(number: int, noise: float = 0.05) -> tuple[list[Atoms], np.ndarray]:
    random = np.random.default_rng(3)
    frames, energies = [], []
    for k in range(number):
        c, h, o = random.integers(1, 6, 3)
        atoms = Atoms(f"C{c}H{h}O{o}", positions=random.normal(size=(c + h + o, 3)))
        per_atom = (-1030 * c - 13.6 * h - 2040 * o) / len(atoms) + random.normal(0, noise)
        frames.append(label(atoms, per_atom * len(atoms), f"a:{k}"))
        energies.append(per_atom)
    return frames, np.array(energies)


def test_robust_fit_recovers_element_energies_despite_outliers() -> None:
    frames, energies = formulas(60, noise=0.0)
    energies[[3, 17, 30]] += [500.0, -40.0, 1e6]
    rest, rank = robust_fit(frames, energies)
    assert rank == 3
    np.testing.assert_allclose(rest[[3, 17, 30]], [500, -40, 1e6], atol=1e-3)
    np.testing.assert_allclose(np.delete(rest, [3, 17, 30]), 0, atol=1e-3)


def test_robust_fit_with_fixed_composition_leaves_the_deviation_from_the_median() -> None:
    rest, rank = robust_fit([molecule("H2O")] * 5, np.array([-5.0, -5.1, -4.9, -5.0, 7.0]))
    assert rank == 1
    np.testing.assert_allclose(rest, [0, -0.1, 0.1, 0, 12], atol=1e-4)


def test_absurd_energies_are_rejected_and_odd_ones_reported() -> None:
    frames, _ = formulas(60)
    frames[5].info[ENERGY] += 30 * len(frames[5])
    frames[9].info[ENERGY] += 3 * len(frames[9])
    faults, warnings = energy_faults(frames, window=20.0)
    assert [k for k, fault in enumerate(faults) if fault] == [5]
    assert "outside dataset.energy_window (20)" in str(faults[5])
    assert any("a:9 (+3.0" in text for text in warnings)


def test_mixed_levels_of_theory() -> None:
    frames, _ = formulas(60)
    for frame in frames[:20]:
        frame.info[ENERGY] += 2.0 * len(frame)
    _, warnings = energy_faults(frames, window=20.0)
    assert "40 and 20 frames differ by 1." in warnings[0]
    for frame in frames[:20]:
        frame.info[ENERGY] += 100.0 * len(frame)
    with pytest.raises(RetemperError, match=r"Mixed levels of theory: 40 and 20 frames differ by 10[12]"):
        energy_faults(frames, window=20.0)
    for k, frame in enumerate(frames):
        frame.info |= {"functional": "PBE", "calculator": "VASP" if k else "QE"}
    tags, warnings = level_tags(frames)
    assert tags["functional"] == {"PBE": 60}
    assert "'calculator' has 2 values" in warnings[0]
    frames[3].info["functional"] = "SCAN"
    with pytest.raises(RetemperError, match="'functional' has 2 values"):
        level_tags(frames)


def test_ten_of_five_hundred_with_another_zero_are_told() -> None:
    frames, _ = formulas(500, noise=0.01)
    assert energy_faults(frames, window=20.0)[1] == []
    for frame in frames[7::50]:
        frame.info[ENERGY] += 0.5 * len(frame)
    _, warnings = energy_faults(frames, window=20.0)
    assert "490 and 10 frames differ by 0.4" in warnings[0]


def rotation(seed: int) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return turn * np.linalg.det(turn)


def test_copies_of_a_molecule_are_found_however_they_lie() -> None:
    random = np.random.default_rng(4)
    start = molecule("CH3CH2OH")
    start.rattle(0.1, rng=random)
    turned, mirrored, swapped, nudged, other = (start.copy() for _ in range(5))
    turned.positions = turned.positions @ rotation(1) + [3, 2, 1]
    mirrored.positions *= [1, 1, -1]
    swapped = swapped[random.permutation(len(start))]
    nudged.positions += 4e-4 * random.normal(size=start.positions.shape)  # RMS 7e-4
    other.positions += 1e-2 * random.normal(size=start.positions.shape)
    frames = [start, turned, mirrored, swapped, nudged, other]
    assert {j for i, j in near_pairs(frames, 1e-3) if i == 0} == {1, 2, 3, 4}
    assert not [pair for pair in near_pairs(frames, 1e-3) if 5 in pair]
    assert near_pairs([start, turned, start.copy()], 0) == [(0, 2)]


def test_copies_of_a_crystal_are_found_however_they_lie() -> None:
    random = np.random.default_rng(5)
    start = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    start.rattle(0.1, rng=random)
    shifted, turned, swapped, nudged, other, strained = (start.copy() for _ in range(6))
    shifted.positions += [1.3, 2.2, -4.0]
    shifted.wrap()
    turned.set_cell(turned.cell.array @ rotation(2), scale_atoms=True)
    swapped = swapped[random.permutation(len(start))]
    swapped.positions += [0.5, 0.1, 0.2]
    swapped.wrap()
    nudged.positions += 4e-4 * random.normal(size=start.positions.shape)
    other.positions += 1e-2 * random.normal(size=start.positions.shape)
    strained.set_cell(strained.cell.array * 1.005, scale_atoms=True)
    frames = [start, shifted, turned, swapped, nudged, other, strained]
    assert {j for i, j in near_pairs(frames, 1e-3) if i == 0} == {1, 2, 3, 4}
    assert not [pair for pair in near_pairs(frames, 1e-3) if {5, 6} & set(pair)]


def test_a_near_copy_of_a_reordered_copy_is_a_copy() -> None:
    start = label(molecule("CH3CH2OH"), source="a:0")
    order = list(range(len(start)))
    first, second = np.flatnonzero(start.numbers == 1)[:2]
    order[first], order[second] = order[second], order[first]
    exchanged = label(start[order], source="a:1")
    moved = label(exchanged.copy(), source="a:2")
    moved.rattle(2e-5, seed=0)
    assert near_pairs([start, exchanged, moved], 1e-3) == [(0, 1), (0, 2), (1, 2)]
    assert near_pairs([exchanged, start, moved], 1e-3) == [(0, 1), (0, 2), (1, 2)]
    assert set(find_duplicates([start, exchanged, moved], 1e-3)) == {1, 2}


def test_near_pairs_against_brute_force() -> None:
    """All pairs of slowly moving frames, at a tolerance that some pass and some fail."""
    random = np.random.default_rng(6)
    for start in (molecule("C6H6"), bulk("Si", cubic=True)):
        frames = [start.copy()]
        for _ in range(60):
            frames.append(frames[-1].copy())
            frames[-1].positions += 5e-4 * random.normal(size=start.positions.shape)
        tolerance, expected = 1.5e-3, set()
        for i, a in enumerate(frames):
            for j in range(i + 1, len(frames)):
                moves = frames[j].positions - a.positions
                moves -= moves.mean(axis=0)
                if np.sqrt((moves**2).sum(axis=1).mean()) <= tolerance:
                    expected.add((i, j))
        found = set(near_pairs(frames, tolerance))
        if start.pbc.any():
            assert found == expected
        else:
            assert found >= expected  # the best superposition moves atoms a little less
            assert len(found - expected) < 0.2 * len(expected)
        assert 60 < len(expected) < 1000


def test_duplicates_go_and_conflicts_go_whole() -> None:
    start = label(molecule("CH3CH2OH"), -10.0)
    frames = []
    for k, energy in enumerate([-10.0, -10.0, -20.0, -20.5, -20.0, -30.0]):
        atoms = start.copy()
        if 2 <= k <= 4:
            atoms.positions[8] += 0.3
        if k == 5:
            atoms.positions[8] -= 0.3
        frames.append(label(atoms, energy, f"a:{k}"))
    frames[1].positions = frames[1].positions @ rotation(3)
    reasons = find_duplicates(frames, 1e-3)
    assert set(reasons) == {1, 2, 3, 4}
    assert reasons[1] == "duplicate of a:0"
    assert all(reasons[k].startswith("conflict") for k in (2, 3, 4))
    assert "a:3 with other labels (+0.05556 eV/atom)" in reasons[2]


def test_a_slow_trajectory_is_thinned_not_removed() -> None:
    frames = []
    for k in range(21):
        atoms = label(molecule("H2O"), 0.0, f"a:{k}")
        atoms.positions[0, 2] += 4e-4 * k
        frames.append(atoms)
    removed = find_duplicates(frames, 1e-3)
    kept = [frame for k, frame in enumerate(frames) if k not in removed]
    assert 3 <= len(kept) <= 7
    assert near_pairs(kept, 1e-3) == []
