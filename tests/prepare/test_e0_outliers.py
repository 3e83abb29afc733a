"""E0s where frames are odd, charged, wrong, or of few groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from labelled_clusters import SHIFT, free_atoms, labelled

from retemper.core.errors import RetemperError
from retemper.data import composition
from retemper.data.frames import ENERGY
from retemper.models import mace
from retemper.prepare import e0_fit
from retemper.records.e0s import ReferenceEnergies

Diagnose = Callable[..., ReferenceEnergies]
WATERS = ["H2O", "H4O2", "H6O3"]
MIXED = ["H2O", "CH4", "CO2", "CH4O", "C2H6O"]


DROPLETS = [f"H{2 * n}O{n}" for n in range(1, 11)]


IONISATION = 5.0  # eV that two frames with an extra proton have beyond the shift of their atoms


def droplets(model: Path, number: int = 200, noise: float = 0.02) -> list[Atoms]:
    return labelled(model, (DROPLETS * number)[:number], noise=noise)


def with_protons(model: Path, charge: float | None = None) -> list[Atoms]:
    """Two droplets H3O+ (H2O)n, which say their charge or not."""
    frames = labelled(model, ["H9O4", "H13O6"])
    for frame in frames:
        frame.info[ENERGY] += IONISATION
        if charge is not None:
            frame.info["charge"] = charge
    return frames


def true_atoms(model: Path, *symbols: str) -> dict[str, float]:
    own = mace.atomic_energies(model)
    numbers = [Atoms(symbol).numbers[0] for symbol in symbols]
    return {symbol: own[int(z)] + SHIFT[int(z)] for symbol, z in zip(symbols, numbers, strict=True)}


@pytest.mark.parametrize("charge", [None, 1.0])
def test_two_protonated_droplets_do_not_move_the_e0s(
    tiny_model: Path, diagnose: Diagnose, charge: float | None
) -> None:
    """Plain least squares puts 2 x 5 eV on O and takes 5 eV from H: the two frames alone hold that direction."""
    frames, ions = droplets(tiny_model), with_protons(tiny_model, charge)
    atoms = true_atoms(tiny_model, "H", "O")
    result = diagnose([*frames, *ions], frames[:1], free_atoms(atoms))
    assert result.E0s[1] == pytest.approx(atoms["H"], abs=0.01)
    assert result.E0s[8] == pytest.approx(atoms["O"], abs=0.01)
    why = "of another charge than most" if charge else "alone in their composition and at odds with the free atoms"
    assert result.left_out[why] == 2
    assert result.deficient == [] and result.ratios == ["H and O occur only as 2:1"]
    assert result.evidence["H"].rests_on == "frames and free atoms"


@pytest.mark.parametrize("charge", [None, 1.0])
def test_without_free_atoms_two_frames_do_not_determine_e0s(
    tiny_model: Path, diagnose: Diagnose, charge: float | None
) -> None:
    frames, ions = droplets(tiny_model), with_protons(tiny_model, charge)
    with pytest.raises(RetemperError, match="do not determine the E0s of H, O") as error:
        diagnose([*frames, *ions], frames[:1], [])
    assert "free atoms of H " in str(error.value) or "free atoms of O " in str(error.value)  # one of them is enough


def test_frames_that_are_all_charged_decide(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, MIXED * 4, noise=0.02)
    for frame in frames:
        frame.info["total_charge"] = -1.0
    result = diagnose(frames, frames[:1], [])
    own = mace.atomic_energies(tiny_model)
    assert [result.E0s[z] - own[z] for z in (1, 6, 8)] == pytest.approx([SHIFT[z] for z in (1, 6, 8)], abs=0.05)


def test_ten_wrong_labels_weigh_little(tiny_model: Path, diagnose: Diagnose) -> None:
    """0.5 eV/atom on 10 of 200 frames; least squares is off by what MACE's formula gives on the same frames.

    The search for mixed labels finds them as well, and would stop the stage.
    """
    frames = labelled(tiny_model, MIXED * 40, noise=0.02)
    for frame in frames[3::20]:
        frame.info[ENERGY] += 0.5 * len(frame)
    result = diagnose(frames, frames[:1], [], mixed="warn")
    own = mace.atomic_energies(tiny_model)
    off = [result.E0s[z] - own[z] - SHIFT[z] for z in (1, 6, 8)]
    counts = composition.composition_matrix(frames, [1, 6, 8])
    bare = np.array([len(frame) * 0.5 * (k % 20 == 3) for k, frame in enumerate(frames)])
    plain = np.linalg.lstsq(counts, bare, rcond=None)[0]
    assert result.left_out["odd, and weigh less"] == 10
    assert np.abs(plain).max() > 0.1 and np.abs(off).max() < 0.02


def test_standard_errors_are_those_of_groups() -> None:
    """Errors shared by twelve groups of 20 frames: the spread over 400 draws against the error that is stated."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, size=(240, 2))
    groups = [f"trajectory {k // 20}" for k in range(240)]
    atoms = np.full(2, np.nan)
    cluster = np.repeat(np.arange(12), 20)
    assert len(set(e0_fit.clusters(np.arange(480).reshape(240, 2), groups).tolist())) == 12
    shifts, stated = [], []
    for _ in range(400):
        error = np.repeat(rng.normal(0, 0.5, 12), 20) + rng.normal(0, 0.1, 240)
        found = e0_fit.fit(counts, counts @ [1.0, -2.0] + error, cluster, np.ones(240, dtype=bool), atoms)
        shifts.append(found.shift)
        stated.append(np.sqrt(np.diag(found.covariance)))
    assert np.mean(stated, axis=0) == pytest.approx(np.std(shifts, axis=0), rel=0.15)
    independent = 0.5 / np.sqrt(np.linalg.inv(np.linalg.inv(counts.T @ counts)).diagonal())
    assert (np.mean(stated, axis=0) > 1.5 * independent).all()


def test_frames_and_free_atoms_count_by_their_variances(tiny_model: Path, diagnose: Diagnose) -> None:
    """Compositions with errors of 2 eV of their own: a limit that is passed weighs, one that is not leaves frames."""
    frames = labelled(tiny_model, MIXED * 3)
    rng = np.random.default_rng(1)
    for name in MIXED:
        error = rng.normal(0, 2.0)
        for frame in frames:
            if frame.get_chemical_formula() == Atoms(name).get_chemical_formula():
                frame.info[ENERGY] += error
    atoms = true_atoms(tiny_model, "H", "C", "O")

    def off(**options: object) -> float:
        result = diagnose(frames, frames[:1], free_atoms(atoms), max_error=5, **options)
        return max(abs(known.off_free_atom) for known in result.evidence.values())

    assert off(max_uncertainty=0.1) < 0.9 * off(max_uncertainty=50)
    with pytest.raises(RetemperError, match="is known to"):
        diagnose(frames, frames[:1], [], max_error=5)
    assert diagnose(frames, frames[:1], [], max_error=5, force=True).deficient


def test_force_does_not_accept_a_foundation_that_misses(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, WATERS * 5)
    for k, frame in enumerate(frames):
        frame.info[ENERGY] += 2.0 * len(frame) * (-1) ** k
    with pytest.raises(RetemperError, match=r"eV/atom \(RMSE\)"):
        diagnose(frames, frames[:1], [], force=True)
    assert diagnose(frames, frames[:1], [], force=True, max_error=3).deficient == ["H", "O"]
