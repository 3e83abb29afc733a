"""The E0 doctor against MACE's own formulas, exact constructions, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from labelled_clusters import SHIFT, free_atoms, labelled

from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data import composition
from retemper.data.frames import ENERGY, write_frames
from retemper.models import mace
from retemper.prepare import e0_fit, e0_methods
from retemper.records.e0s import ReferenceEnergies

Diagnose = Callable[..., ReferenceEnergies]


WATERS = ["H2O", "H4O2", "H6O3"]
BRINE = ["NaClH2O", "NaClH4O2", "NaClH8O4"]
MIXED = ["H2O", "CH4", "CO2", "CH4O", "C2H6O"]


# ------------------------------------------------------------------ the formulas


def test_reestimate_and_average_are_maces_own(tiny_model: Path, diagnose: Diagnose) -> None:
    from mace import data
    from mace.tools import AtomicNumberTable

    frames = labelled(tiny_model, MIXED, noise=0.3)
    ours = diagnose(frames, frames[:1], [], method="average", max_error=100)
    table = AtomicNumberTable([1, 6, 8])
    keys = data.KeySpecification(info_keys={"energy": ENERGY}, arrays_keys={})
    configs = [data.config_from_atoms(frame, key_specification=keys) for frame in frames]
    module = mace.load(tiny_model)
    with mace.default_dtype("float64"):
        own = mace.atomic_energies(tiny_model)
        theirs = data.estimate_e0s_from_foundation(module, own, configs, table)
    assert ours.available["reestimate"].E0s == pytest.approx({z: theirs[z] for z in (1, 6, 8)}, abs=1e-8)
    averaged = data.utils.compute_average_E0s(configs, table)
    assert ours.available["average"].E0s == pytest.approx({z: averaged[z] for z in (1, 6, 8)}, abs=1e-8)


def test_reestimate_finds_a_known_shift_and_leaves_other_elements(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, MIXED)
    result = diagnose(frames, frames[-1:], [])
    own = mace.atomic_energies(tiny_model)
    expected = {z: own[z] + (SHIFT[z] if z in (1, 6, 8) else 0.0) for z in own}
    assert result.E0s == pytest.approx(expected, abs=1e-9)
    assert (result.rank, result.n_elements, result.deficient) == (3, 3, [])
    assert result.error_per_atom.rmse < 1e-6
    assert "average" not in result.candidates
    # without re-estimation the error is SHIFT, frame by frame
    counts = composition.composition_matrix([*frames, frames[-1]], [1, 6, 8])
    by_hand = counts @ [SHIFT[1], SHIFT[6], SHIFT[8]] / counts.sum(axis=1)
    assert result.available["foundation"].error_per_atom.mae == pytest.approx(1000 * np.abs(by_hand).mean())


def test_free_atoms_decide_only_what_the_frames_leave_open(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, BRINE, noise=0.2)
    own = mace.atomic_energies(tiny_model)
    atoms = {"H": own[1] - 2.0, "O": own[8] + 3.0, "Na": own[11] + 1.0, "Cl": own[17] - 38.0}
    with_atoms = diagnose(frames, frames[:1], free_atoms(atoms))
    without = diagnose(frames, frames[:1], [], force=True)
    assert (with_atoms.rank, with_atoms.deficient) == (2, [])
    assert without.deficient == ["H", "O", "Na", "Cl"]
    # no frame's energy changes ...
    assert dict(with_atoms.error_per_atom) == pytest.approx(dict(without.error_per_atom), abs=1e-6)
    # ... and the E0s are the point nearest to the atoms on the line that fits: the distance to them
    # is orthogonal to both open directions, Na against Cl and O against two H.
    off = {symbol: with_atoms.E0s[z] - atoms[symbol] for symbol, z in (("H", 1), ("O", 8), ("Na", 11), ("Cl", 17))}
    assert off["Na"] == pytest.approx(off["Cl"], abs=1e-8)
    assert off["H"] == pytest.approx(2 * off["O"], abs=1e-8)
    # without atoms the correction itself is orthogonal to them: the E0s nearest to the foundation's
    change = {z: without.E0s[z] - own[z] for z in (1, 8, 11, 17)}
    assert change[11] == pytest.approx(change[17], abs=1e-8)
    assert change[1] == pytest.approx(2 * change[8], abs=1e-8)


def test_one_free_atom_of_each_ratio_is_exact(tiny_model: Path, diagnose: Diagnose) -> None:
    """O and Cl settle both ratios: their E0s are the atoms', H and Na follow from the frames."""
    frames = labelled(tiny_model, BRINE)
    own = mace.atomic_energies(tiny_model)
    atoms = {"O": own[8] + SHIFT[8], "Cl": own[17] + SHIFT[17]}
    result = diagnose(frames, frames[:1], free_atoms(atoms))
    assert result.E0s == pytest.approx({z: own[z] + (SHIFT[z] if z not in (6, 7) else 0.0) for z in own}, abs=1e-8)


def test_isolated_method_takes_the_atoms(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, WATERS)
    own = mace.atomic_energies(tiny_model)
    atoms = {"H": own[1] + SHIFT[1] + 0.1, "O": own[8] + SHIFT[8] + 0.1}
    result = diagnose(frames, frames[:1], free_atoms(atoms), method="isolated")
    assert (result.E0s[1], result.E0s[8]) == (pytest.approx(atoms["H"]), pytest.approx(atoms["O"]))
    assert result.error_per_atom.mean == pytest.approx(100.0)  # 0.1 eV too much on every atom


# ------------------------------------------------------------------ the refusals


def test_fixed_ratios_stop_with_names_and_a_way_out(tiny_model: Path, diagnose: Diagnose, tmp_path: Path) -> None:
    frames = labelled(tiny_model, BRINE)
    with pytest.raises(RetemperError) as error:
        diagnose(frames, frames[:1], [])
    text = str(error.value)
    assert "H and O occur only as 2:1" in text
    assert "Na and Cl occur only as 1:1" in text
    assert "free atoms of O, Cl" in text
    assert "e0s.force: true" in text
    assert "rank 2" in text
    assert not (tmp_path / "runs/e0s/e0s.json").exists()


def test_averaging_is_not_saved_by_free_atoms(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, WATERS)
    with pytest.raises(RetemperError, match=r"e0s\.method: reestimate"):
        diagnose(frames, frames[:1], free_atoms({"H": -13.6, "O": -2000.0}), method="average")


def test_large_error_stops_and_force_does_not_lift_it(tiny_model: Path, diagnose: Diagnose, tmp_path: Path) -> None:
    frames = labelled(tiny_model, MIXED)
    with pytest.raises(RetemperError, match=r"eV/atom \(RMSE\)") as error:
        diagnose(frames, frames[:1], [], method="foundation", force=True)
    assert "set e0s.method: reestimate" in str(error.value)
    assert not (tmp_path / "runs/e0s/e0s.json").exists()
    result = diagnose(frames, frames[:1], [], method="foundation", max_error=100)
    assert ReferenceEnergies.read(tmp_path / "runs/e0s/e0s.json") == result


def test_missing_and_contradicting_free_atoms(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, MIXED)
    with pytest.raises(RetemperError, match="no free atom of C, O"):
        diagnose(frames, frames[:1], free_atoms({"H": -13.6}), method="isolated")
    with pytest.raises(RetemperError, match="Several free atoms of O"):
        diagnose(frames, frames[:1], [*free_atoms({"O": -102.57}), *free_atoms({"O": -102.52})])


def test_element_in_the_validation_frames_only(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, MIXED)
    with pytest.raises(RetemperError, match="Na does not occur in the training frames"):
        diagnose(frames, labelled(tiny_model, ["NaH"]), [])


def test_element_that_the_foundation_lacks(tiny_model: Path, diagnose: Diagnose) -> None:
    frames = labelled(tiny_model, MIXED)
    foreign = Atoms("AuH", positions=[[0, 0, 0], [1.5, 0, 0]], info={ENERGY: -1.0})
    with pytest.raises(RetemperError, match="Au"):
        diagnose([*frames, foreign], frames[:1], [])


# ------------------------------------------------------------------ the stage


def test_stage_writes_e0s_or_exits_with_one_and_says_why(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines import e0s as stage

    params = (
        "system: test\nfoundation: tiny\nstrategies: [naive]\nseeds: [1]\ndataset: {files: [x], level_of_theory: y}\n"
    )
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "foundations").mkdir()
    entry = "about: a, level_of_theory: b, licence: c, citation: d, head: Default"
    entry = f"tiny: {{{entry}, file: {tiny_model}, sha256: '{sha256(tiny_model)}'}}\n"
    (tmp_path / "foundations" / "foundations.yaml").write_text(entry)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        stage.main()
    assert end.value.code == 1
    assert "train.extxyz does not exist" in capsys.readouterr().err
    frames = labelled(tiny_model, MIXED)
    for name, content in (("train", frames), ("valid", frames[:1]), ("isolated", [])):
        write_frames(f"runs/dataset/{name}.extxyz", content)
    stage.main()
    written = ReferenceEnergies.read("runs/e0s/e0s.json")
    assert written.method == "reestimate"
    assert set(written.E0s) == set(mace.elements(tiny_model))


# ------------------------------------------------------------------ stoichiometry


@pytest.mark.parametrize(
    ("formulas", "words", "settle"),
    [
        (MIXED, [], []),
        (["C6H7N", "C6H7N"], ["H, C and N occur only as 7:6:1"], [6, 7]),
        (["CH4", "C2H6", "C3H8O", "C2H6O"], [], []),
        (["CH4", "H2O", "CH4H2O"], ["n(H) = 4 n(C) + 2 n(O) in every frame"], [8]),
        (BRINE, ["H and O occur only as 2:1", "Na and Cl occur only as 1:1"], [8, 17]),
    ],
)
def test_ratios_in_words(formulas: list[str], words: list[str], settle: list[int]) -> None:
    frames = [Atoms(formula) for formula in formulas]
    numbers = sorted({int(z) for frame in frames for z in frame.numbers})
    counts = composition.composition_matrix(frames, numbers)
    found, concerned, atoms = composition.fixed_ratios(counts, numbers)
    assert sorted(found) == sorted(words)
    assert atoms == settle
    assert bool(concerned) == bool(words)
    # the free atoms named do settle it, and the two ways to a rank agree
    rows = np.vstack([counts, np.eye(len(numbers), dtype=int)[[numbers.index(z) for z in atoms]]])
    assert np.linalg.matrix_rank(rows) == len(numbers)
    assert composition.null_basis(counts).shape[1] == len(atoms)


def test_null_basis_is_orthonormal_and_unseen() -> None:
    counts = np.random.default_rng(0).integers(0, 9, size=(40, 3)) @ np.array(
        [[1, 2, 0, 3], [0, 1, 1, 0], [2, 0, 0, 1]]
    )
    basis = composition.null_basis(counts)
    assert basis.shape == (4, 1)
    assert basis.T @ basis == pytest.approx(np.eye(1))
    assert counts @ basis == pytest.approx(np.zeros((40, 1)), abs=1e-9)


@pytest.mark.parametrize(("formulas", "hidden"), [(MIXED, "all"), (BRINE, "each in turn")])
def test_recovery_of_hidden_atoms(tiny_model: Path, formulas: list[str], hidden: str) -> None:
    """Exact when the level differs by a shift alone; averaging takes binding energies for E0s."""
    frames = labelled(tiny_model, formulas)
    own = mace.atomic_energies(tiny_model)
    numbers = {int(z) for frame in frames for z in frame.numbers}
    result = e0_methods.recovery(tiny_model, frames, {z: own[z] + SHIFT[z] for z in SHIFT})
    assert result.hidden == hidden
    assert set(result.errors["reestimate"]) == numbers
    assert result.mae("reestimate") < 1e-8
    assert result.mae("foundation") == pytest.approx(np.mean([abs(SHIFT[z]) for z in numbers]))
    assert result.mae("average") > 0.1


def test_an_element_that_no_frame_has_rests_on_no_frames() -> None:
    """Of one, two and three atoms of the other: weights 1, 4, 9 of least squares, an effective number of 14^2 / 98."""
    counts = np.array([[1, 0], [2, 0], [3, 0]])
    fit = e0_fit.fit(counts, counts @ [1.0, 0.0], np.arange(3), np.ones(3, dtype=bool), np.full(2, np.nan))
    assert fit.support == pytest.approx([2.0, 0.0])
