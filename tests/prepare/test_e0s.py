"""The E0 doctor against MACE's own formulas, exact constructions, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import prepared
import pytest
from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data import composition
from retemper.data.frames import ENERGY, write_frames
from retemper.models import mace, predict
from retemper.prepare import e0_fit, e0_methods, e0s
from retemper.records.e0s import ReferenceEnergies

SHIFT = {1: -3.0, 6: -11.0, 8: 7.5, 11: 0.25, 17: -40.0}  # eV; the new level minus the foundation's
Diagnose = Callable[..., ReferenceEnergies]


def cluster(formula: str, rng: np.random.Generator) -> Atoms:
    """Atoms of `formula` on a loosely filled random grid; distances are of no importance here."""
    atoms = Atoms(formula)
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    atoms.positions = 1.6 * rng.permutation(grid)[: len(atoms)] + rng.normal(0, 0.1, (len(atoms), 3))
    return atoms


def labelled(model: Path, formulas: list[str], noise: float = 0.0) -> list[Atoms]:
    """Clusters whose labels are the model's energies plus SHIFT per atom (plus noise, eV)."""
    rng = np.random.default_rng(5)
    frames = [cluster(formula, rng) for formula in formulas]
    energies = predict.predict(model, frames, backend="torch").energy
    for frame, energy in zip(frames, energies, strict=True):
        frame.info[ENERGY] = float(energy) + sum(SHIFT[int(z)] for z in frame.numbers) + rng.normal(0, 1) * noise
    return frames


def free_atoms(energies: dict[str, float]) -> list[Atoms]:
    frames = [Atoms(symbol, positions=[[0, 0, 0]]) for symbol in energies]
    for frame, energy in zip(frames, energies.values(), strict=True):
        frame.info.update({ENERGY: energy, "config_type": "IsolatedAtom"})
    return frames


@pytest.fixture
def diagnose(tiny_model: Path, tmp_path: Path) -> Diagnose:
    def run(train: list[Atoms], valid: list[Atoms], free: list[Atoms], **options: object) -> ReferenceEnergies:
        project = prepared.project(tmp_path, tiny_model, e0s=options)
        for name, frames in (("train", train), ("valid", valid), ("isolated", free)):
            write_frames(project.structures(name), frames)
        return e0s.run(project)

    return run


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


# ------------------------------------------------------------------ odd frames, charges, groups

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
