"""The generators: groups are made again as they are in the files, and what the embedded sets hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from ase.spacegroup import crystal

from retemper.data.charge import charge_of
from retemper.data.frames import ENERGY, FORCES, is_isolated_atom, read_frames
from retemper.systems import generator_names, xtb
from retemper.systems.generate import ice, lpsc, nacl, sn2, spice
from retemper.systems.make import generator
from retemper.systems.structures import rng_of

RAW = Path(__file__).resolve().parents[2] / "data" / "raw"


@pytest.fixture(scope="module", params=["nacl", "molecules", "sn2", "spice"])
def kept(request: pytest.FixtureRequest) -> list[Atoms]:
    return read_frames(RAW / f"{request.param}.extxyz.xz")


def test_frames_are_labelled_grouped_and_plausible(kept: list[Atoms]) -> None:
    assert 240 <= len(kept) <= 400
    assert len({frame.info["group"] for frame in kept}) >= 25
    for frame in kept:
        assert frame.info["level"] == "GFN2-xTB"
        assert np.isfinite(frame.info[ENERGY])
        assert frame.arrays[FORCES].shape == (len(frame), 3)
        assert np.abs(frame.arrays[FORCES].sum(axis=0)).max() < 1e-3  # no net force on a free system
        assert np.linalg.norm(frame.arrays[FORCES], axis=1).max() < xtb.MAX_FORCE
        assert not frame.pbc.any()


def test_free_atom_of_every_element_with_hunds_multiplicity(kept: list[Atoms]) -> None:
    free = {str(frame.symbols[0]): frame for frame in kept if is_isolated_atom(frame)}
    assert set(free) == {symbol for frame in kept for symbol in frame.symbols}
    triplets = {"C": -48.798, "O": -102.522}  # tblite's default for C, the singlet, lies at -48.847 eV
    for symbol in triplets.keys() & free.keys():
        assert free[symbol].info[ENERGY] == pytest.approx(triplets[symbol], abs=1e-3)


def test_labels_belong_to_the_positions_in_the_file(kept: list[Atoms]) -> None:
    for index in (20, 120, 220):
        again = xtb.label(kept[index], config_type="x", group="x", charge=int(charge_of(kept[index])))
        assert again.positions == pytest.approx(kept[index].positions, abs=1e-12)
        assert again.info[ENERGY] == pytest.approx(kept[index].info[ENERGY], abs=1e-4)
        assert again.arrays[FORCES] == pytest.approx(kept[index].arrays[FORCES], abs=1e-3)


def cheapest(frames: list[Atoms]) -> list[Atoms]:
    """The group with the fewest atoms; a periodic one where there are any."""
    groups: dict[str, list[Atoms]] = {}
    for frame in frames:
        groups.setdefault(str(frame.info["group"]), []).append(frame)
    groups.pop("isolated")
    return min(groups.values(), key=lambda group: (not group[0].pbc.any(), sum(map(len, group))))


@pytest.mark.parametrize("name", generator_names())
def test_a_group_is_made_again(name: str) -> None:
    """Every generator: the same frames, kinds and labels, from the seed and the group's name alone."""
    module = generator(name)
    if module.LEVEL != xtb.LEVEL:
        pytest.importorskip("sevenn")  # has an environment of its own: systems/requirements.txt
    kept = cheapest(read_frames(RAW / f"{name}.extxyz.xz"))
    tally = xtb.Tally()
    again = module.group(kept[0].info["group"], 0, tally)
    assert tally.kept == len(again) == len(kept)
    for new, old in zip(again, kept, strict=True):
        assert new.info["config_type"] == old.info["config_type"]
        assert new.positions == pytest.approx(old.positions, abs=1e-8)
        assert new.info[ENERGY] == pytest.approx(old.info[ENERGY], abs=1e-6)


def test_forces_are_the_energys_derivative() -> None:
    """Five-point central differences of the energy against the kept forces."""
    frame = next(f for f in read_frames(RAW / "nacl.extxyz.xz") if f.info["group"] == "nacl-07")
    step = 1e-3
    for atom, axis in ((0, 0), (1, 2), (5, 1)):
        energies = {}
        for k in (-2, -1, 1, 2):
            moved = Atoms(frame.symbols, positions=frame.positions)
            moved.positions[atom, axis] += k * step
            moved.calc = xtb.calculator()
            energies[k] = moved.get_potential_energy()
        slope = (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12 * step)
        assert -slope == pytest.approx(frame.arrays[FORCES][atom, axis], abs=1e-3)


def test_groups_have_generators_of_their_own() -> None:
    first = [rng_of(name, seed).integers(2**32) for name, seed in (("a", 0), ("b", 0), ("a", 1))]
    assert len(set(first)) == 3
    assert rng_of("a", 0).integers(2**32) == first[0]


def test_the_hydrogens_of_a_complex_lean_away_from_the_bond() -> None:
    """CH3Cl in the complex with F-: near tetrahedral, F on the other side, on the line."""
    atoms = sn2.approach("F", "Cl")
    assert atoms.get_distance(0, 1) == pytest.approx(1.78) and atoms.get_distance(0, 2) == pytest.approx(2.6)
    assert atoms.get_angle(1, 0, 2) == pytest.approx(180.0)
    assert all(100 < atoms.get_angle(1, 0, h) < 115 for h in (3, 4, 5))


def test_the_barrier_of_an_exchange_is_in_the_middle_of_its_path() -> None:
    """Cl- + CH3Cl at GFN2-xTB: the path is symmetric, and its top is the symmetric structure."""
    energies = []
    for point in sn2.path("Cl", "Cl"):
        point.calc = xtb.calculator(charge=sn2.CHARGE)
        energies.append(point.get_potential_energy())
    assert energies == pytest.approx(energies[::-1], abs=2e-3)
    assert np.argmax(energies) == len(energies) // 2


def test_capped_dipeptides_are_l_amino_acids() -> None:
    """S at every alpha carbon but that of cysteine, whose sulfur comes first in the Cahn-Ingold-Prelog order."""
    chem = pytest.importorskip("rdkit.Chem")
    for letter in spice.SIDE_CHAINS | {"P": ""}:
        mol = chem.MolFromSmiles(spice.capped_smiles(letter))
        alpha = mol.GetSubstructMatch(chem.MolFromSmarts("CC(=O)N[CX4]C(=O)NC"))[4]
        labels = dict(chem.FindMolChiralCenters(mol, useLegacyImplementation=False))
        assert labels[alpha] == ("R" if letter == "C" else "S"), letter


def test_dimers_keep_their_gap() -> None:
    rng = np.random.default_rng(0)
    water = molecule("H2O")
    for _ in range(20):
        both = spice.dimer(water, water, rng)
        radii = covalent_radii[both.numbers]
        gaps = (both.get_all_distances() - radii[:, None] - radii)[:3, 3:]
        assert spice.GAP[0] <= gaps.min() <= spice.GAP[1] + 0.05


def test_lpsc_has_half_of_its_lithium_sites_and_the_exchanged_anions() -> None:
    """PS4 stays whole: P-S is 2.04 A in the measured structure; no two Li come near; anions change places."""
    for swaps in (0, 1, 2):
        atoms = lpsc.disordered(np.random.default_rng(swaps), swaps=swaps)
        assert atoms.get_chemical_formula() == "Cl4Li24P4S20"
        distances = atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms))
        bonds = distances[np.ix_(atoms.numbers == 15, atoms.numbers == 16)] * lpsc.LATTICE / atoms.cell[0, 0]
        assert ((bonds < 2.1).sum(axis=1) == 4).all() and bonds.min() == pytest.approx(2.037, abs=0.01)
        assert distances[np.ix_(atoms.numbers == 3, atoms.numbers == 3)].min() > lpsc.NEIGHBOURS
        origin = crystal("Cl", [lpsc.SITES["Cl"]], spacegroup=216, cellpar=atoms.cell.cellpar())
        both = origin + atoms
        at_origin = both.get_all_distances(mic=True)[:4, 4:].argmin(axis=1)
        assert sorted(atoms.symbols[at_origin]) == ["Cl"] * (4 - swaps) + ["S"] * swaps


def test_ice_is_strained_as_it_says_and_its_molecules_stay_whole() -> None:
    """Ice VIII, which needs no GenIce: density of Kuhs (1984), molecules of 0.97 A and 105.6 degrees."""
    start = ice.cell_of("VIII", 0)
    assert start.get_masses().sum() * 1.660539 / start.get_volume() == pytest.approx(1.629, abs=0.01)  # g/cm3
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(30):
        frame = ice.disturb(start, rng)
        changes.append(frame.get_volume() / start.get_volume() - 1)
        for i in range(0, len(frame), 3):
            assert frame.get_distance(i, i + 1) == pytest.approx(start.get_distance(i, i + 1), abs=0.12)
    assert ice.VOLUME[0] - 1e-3 < min(changes) < -0.05 and 0.03 < max(changes) < ice.VOLUME[1] + 1e-3


def test_a_rotation_turns_by_its_angle_about_its_axis() -> None:
    turn = ice.rotation(np.array([0.0, 0.0, np.pi / 2]))
    assert turn @ [1.0, 0.0, 0.0] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)


def test_droplet_keeps_its_distances() -> None:
    atoms = nacl.droplet(14, np.random.default_rng(3), separated=True)
    distances = atoms.get_all_distances()
    oxygen = np.flatnonzero(atoms.numbers == 8)
    assert len(oxygen) == 14
    assert 4.5 <= distances[0, 1] <= 6.0
    assert distances[0, oxygen].min() > 2.3
    assert distances[1, oxygen].min() > 3.0
    assert (distances[np.ix_(oxygen, oxygen)] + 9 * np.eye(14)).min() > 2.6


def test_absurd_forces_are_counted() -> None:
    squeezed = Atoms("H2", positions=[[0, 0, 0], [0.3, 0, 0]])
    tally = xtb.Tally()
    assert xtb.label_all([(squeezed, "x")], "x", tally) == []
    assert str(tally) == "0 frames kept; left out: 1 force above 20 eV/A"
