"""Mixed labels are found in a foundation's errors, and right ones are left alone."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from ase import Atoms
from conftest import ROOT

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, is_isolated_atom, read_frames, write_frames
from retemper.prepare import e0s, mixture, mixture_fit, one_level
from retemper.prepare.mixture_fit import Errors
from retemper.records.e0s import ReferenceEnergies

MINI = ROOT / "foundations/mini.model"
REAL = ("3bpa_300K", "3bpa_mixedT", "mlearn_Li_PBE")


def frames_of(path: Path) -> list[Atoms]:
    frames = [atoms for atoms in read_frames(path) if not is_isolated_atom(atoms)]
    for k, atoms in enumerate(frames):
        atoms.info["source"] = f"{path.name}:{k}"
    return frames


@pytest.fixture(scope="module")
def molecules() -> Errors:
    """336 frames of 42 molecules, 5 to 18 atoms."""
    return one_level.errors_of(MINI, frames_of(ROOT / "data/raw/molecules.extxyz.xz"))


@pytest.fixture(scope="module")
def sn2() -> Errors:
    """292 frames of ten compositions of six atoms."""
    return one_level.errors_of(MINI, frames_of(ROOT / "data/raw/sn2.extxyz.xz"))


def shifted(errors: Errors, frames: Any, per_atom: float = 0.0, per_structure: float = 0.0) -> Errors:
    energy = errors.per_atom.copy()
    energy[frames] += per_atom + per_structure / errors.atoms[frames]
    return replace(errors, per_atom=energy)


def stopping(errors: Errors) -> list[mixture.Finding]:
    return [finding for finding in mixture.examine(errors) if finding.stops]


def test_right_labels_are_left_alone(molecules: Errors, sn2: Errors) -> None:
    assert mixture.examine(molecules) == [] and mixture.examine(sn2) == []
    rng = np.random.default_rng(0)
    for errors in (molecules, sn2):  # nor does it matter how they lie in files
        for _ in range(5):
            sources = [f"{'ab'[int(rng.random() < 0.4)]}:{k}" for k in range(len(errors))]
            assert stopping(replace(errors, sources=sources)) == []


@pytest.mark.parametrize("number", [10, 25])
def test_a_few_frames_with_another_zero_are_found(molecules: Errors, number: int) -> None:
    """10 and 25 of 336 by 0.5 eV/atom; no fit of energies by composition sees the ten."""
    chosen = np.sort(np.random.default_rng(number).permutation(len(molecules))[:number])
    (finding,) = stopping(shifted(molecules, chosen, per_atom=0.5))
    assert finding.kind == "second mode"
    assert finding.frames.tolist() == chosen.tolist()
    assert finding.offset == pytest.approx(0.5, abs=0.1)


def test_half_the_frames_by_three_quarters_of_an_ev_a_molecule_are_found(sn2: Errors) -> None:
    chosen = np.sort(np.random.default_rng(1).permutation(len(sn2))[: len(sn2) // 2])
    (finding,) = stopping(shifted(sn2, chosen, per_structure=0.75))
    assert finding.kind == "second mode"
    found = set(finding.frames.tolist())
    assert max(len(found & set(chosen.tolist())), len(found - set(chosen.tolist()))) > 0.95 * len(chosen)
    assert abs(finding.offset) == pytest.approx(0.75 / 6, rel=0.1)


def test_files_by_two_functionals_are_told_apart(molecules: Errors) -> None:
    """A functional moves every element's energy by its own amount; each file has frames of all molecules."""
    n = len(molecules)
    other = np.arange(n) % 2 == 1
    shift = molecules.shares @ np.linspace(-0.12, 0.2, molecules.shares.shape[1])
    sources = [f"{'b' if theirs else 'a'}.xyz:{k}" for k, theirs in enumerate(other)]
    found = stopping(replace(molecules, per_atom=molecules.per_atom + other * shift, sources=sources))
    assert {(finding.kind, finding.where) for finding in found} == {("file", "a.xyz"), ("file", "b.xyz")}


def test_settings_changed_within_a_file_are_found(sn2: Errors) -> None:
    """By 35 meV/atom, less than a second mode needs, from frame 200 on."""
    rng = np.random.default_rng(2)
    order = rng.permutation(len(sn2))
    sources = [""] * len(order)
    for place, k in enumerate(order):
        sources[k] = f"a:{place}"
    late = np.array([int(source[2:]) >= 200 for source in sources])
    (finding,) = stopping(replace(shifted(sn2, late, per_atom=0.035), sources=sources))
    assert finding.kind == "step"
    assert abs(int(finding.where.removeprefix("from a:").removesuffix(" on")) - 200) <= 5


def test_a_level_that_goes_along_with_composition_is_no_mixture(molecules: Errors) -> None:
    """What E0s take up is not called a mixture, and a charge that is given explains its offset."""
    assert stopping(shifted(molecules, molecules.shares[:, 0] > 0.4, per_atom=0.0)) == []
    energies = molecules.per_atom + molecules.shares @ np.linspace(-30, 40, molecules.shares.shape[1])
    assert stopping(replace(molecules, per_atom=energies)) == []
    cations = np.arange(len(molecules)) % 3 == 0
    charged = shifted(molecules, cations, per_structure=9.0)
    assert stopping(charged)
    assert stopping(replace(charged, states=[str(int(own)) for own in cations])) == []


def test_leave_one_out_is_what_it_says() -> None:
    """The closed formula against leaving every frame out in turn."""
    rng = np.random.default_rng(3)
    columns, y, weights = rng.normal(size=(40, 5)), rng.normal(size=40), rng.uniform(0.2, 1, 40)
    fast = mixture_fit._left_out(columns, y, weights, 1e-9)
    for k in (0, 7, 39):
        rest = np.arange(40) != k
        design = np.hstack([columns, np.ones((40, 1))])
        root = np.sqrt(weights[rest])
        fit = np.linalg.lstsq(design[rest] * root[:, None], y[rest] * root, rcond=None)[0]
        assert fast[k] == pytest.approx(y[k] - design[k] @ fit, abs=1e-6)


def test_six_new_labels_of_another_zero_lie_apart(molecules: Errors) -> None:
    """By 0.5 eV/atom, of one molecule or of six; right ones of a molecule that no other frame has do not."""
    trained = mixture_fit.unexplained(molecules, structure=False)  # as from a model with E0s of the labels' level
    errors = replace(molecules, per_atom=trained)
    rows = [row.tobytes() for row in molecules.shares.round(6)]
    for composition in list(dict.fromkeys(rows))[:10]:
        new = np.array([k for k, row in enumerate(rows) if row == composition])[:6]
        assert mixture.common_offset(errors, new) is None
        apart = mixture.common_offset(shifted(errors, new, per_atom=0.5), new)
        assert apart is not None and apart[0] == pytest.approx(0.5, abs=0.15)
    mixed = np.arange(0, len(rows), 60)
    assert mixture.common_offset(errors, mixed) is None
    assert mixture.common_offset(shifted(errors, mixed, per_atom=-0.5), mixed) is not None


# ------------------------------------------------------------------ the stage


def project(root: Path, **options: Any) -> Project:
    return prepared.project(root, MINI, e0s={"max_error": 5.0, "force": True, **options})


def write_sets(folder: Path, offset: float) -> list[str]:
    """Every fourth frame of nine compositions is in no set; ten frames have an offset (eV/atom): their sources."""
    frames = frames_of(ROOT / "data/raw/sn2.extxyz.xz")
    odd = frames[5::29][:10]
    for atoms in odd:
        atoms.info[ENERGY] += offset * len(atoms)
    write_frames(folder / "train.extxyz", frames[::2])
    write_frames(folder / "valid.extxyz", frames[1::4])
    write_frames(folder / "test.extxyz", frames[3::4])
    (folder / "isolated.extxyz").write_text("")
    return [str(atoms.info["source"]) for atoms in odd]


def test_a_mixture_stops_the_stage_and_is_listed(tmp_path: Path) -> None:
    odd = write_sets(tmp_path / "runs/dataset", 0.5)
    out = tmp_path / "runs/e0s/e0s.json"
    with pytest.raises(RetemperError, match="10 of 292 frames lie") as error:
        e0s.run(project(tmp_path))
    assert "dataset.levels" in str(error.value) and "e0s.mixed" in str(error.value)
    assert not out.exists()
    rows = list(csv.DictReader((out.parent / one_level.LISTED).open()))
    assert sorted(row["source"] for row in rows) == sorted(odd)  # those of the test set too
    assert all(400 < float(row["unexplained_meV_per_atom"]) < 600 for row in rows)
    told = e0s.run(project(tmp_path, mixed="warn"))
    assert told.levels.findings[0].frames == 10 and ReferenceEnergies.read(out) == told


def test_right_labels_and_too_few_are_said(tmp_path: Path) -> None:
    write_sets(tmp_path / "runs/dataset", 0.0)
    found = e0s.run(project(tmp_path))
    assert found.levels.frames == 292 and found.levels.findings == []
    assert 0.003 < found.levels.scatter < 0.02
    for name in one_level.SETS:
        path = tmp_path / f"runs/dataset/{name}.extxyz"
        write_frames(path, read_frames(path)[:8])
    found = e0s.run(project(tmp_path))
    assert found.levels.frames == 0 and "not tested" in found.levels.sentence


@pytest.mark.parametrize("name", REAL)
def test_real_labels(real_data: Path, name: str) -> None:
    errors = one_level.errors_of(MINI, frames_of(real_data / f"real/{name}.extxyz"))
    assert stopping(errors) == []
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(errors))[: round(0.03 * len(errors))]
    assert stopping(shifted(errors, chosen, per_atom=0.5))
    half = rng.permutation(len(errors))[: len(errors) // 2]
    assert stopping(shifted(errors, half, per_structure=0.75))


def test_two_functionals_of_one_system(real_data: Path) -> None:
    parts = [frames_of(real_data / f"generated/{name}.extxyz") for name in ("lpsc_7net", "lpsc_r2scan7net")]
    found = stopping(one_level.errors_of(MINI, [atoms for part in parts for atoms in part]))
    assert {finding.kind for finding in found} == {"file"} and len(found) == 2
