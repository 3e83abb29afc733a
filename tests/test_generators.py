"""The generators: groups are made again as they are in the files, and what the embedded sets hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from retemper import xtb
from retemper.frames import ENERGY, FORCES, is_isolated_atom, read_frames
from retemper.systems.generate import nacl
from retemper.systems.make import generator
from retemper.systems.structures import rng_of

RAW = Path(__file__).resolve().parents[1] / "data" / "raw"


@pytest.fixture(scope="module", params=["nacl", "molecules"])
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
    if "C" in free:  # the triplet; tblite's default, the singlet, lies at -48.847 eV
        assert free["C"].info[ENERGY] == pytest.approx(-48.798, abs=1e-3)
    assert free["O"].info[ENERGY] == pytest.approx(-102.522, abs=1e-3)


def test_labels_belong_to_the_positions_in_the_file(kept: list[Atoms]) -> None:
    for index in (20, 120, 220):
        again = xtb.label(kept[index], config_type="x", group="x")
        assert again.positions == pytest.approx(kept[index].positions, abs=1e-12)
        assert again.info[ENERGY] == pytest.approx(kept[index].info[ENERGY], abs=1e-4)
        assert again.arrays[FORCES] == pytest.approx(kept[index].arrays[FORCES], abs=1e-3)


@pytest.mark.parametrize(("system", "group"), [("molecules", "methanol"), ("nacl", "nacl-00")])
def test_a_group_is_made_again(system: str, group: str) -> None:
    kept = [frame for frame in read_frames(RAW / f"{system}.extxyz.xz") if frame.info["group"] == group]
    tally = xtb.Tally()
    again = generator(system).group(group, 0, tally)
    assert tally.kept == len(again) == len(kept)
    assert [f.info["config_type"] for f in again] == [f.info["config_type"] for f in kept]
    assert [f.info[ENERGY] for f in again] == pytest.approx([f.info[ENERGY] for f in kept], abs=1e-4)


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
