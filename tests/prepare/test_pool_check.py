"""Labels of a pool against the foundation: the same level passes, another one is said or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from conftest import ROOT
from shipped_sets import MINI

from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, STRESS, is_isolated_atom, read_frames
from retemper.data.units.predicted import Predicted
from retemper.prepare.pool_check import agreement, require_own_kind, warning
from retemper.prepare.predictor import predictor
from retemper.records.replay import Agreement

OFFSETS = {"Na": 1.5, "Cl": -0.7}


def sample(path: Path, number: int = 60) -> list[Atoms]:
    frames = [atoms for atoms in read_frames(path) if not is_isolated_atom(atoms)]
    return [frames[i] for i in np.random.default_rng(0).permutation(len(frames))[:number]]


def ask(frames: Sequence[Atoms]) -> Agreement:
    predicted = predictor(MINI, None, "cpu")(frames)
    assert predicted is not None
    return agreement(predicted)


def salts(number: int = 12) -> Predicted:
    """Predictions whose labels are off by `OFFSETS` an atom, by 0.1 eV/A in x and by 0.01 eV/A^3 in the stress xx."""
    rng = np.random.default_rng(1)
    frames, energies, forces, stresses = [], [], [], []
    for _ in range(number):
        symbols = ["Na"] * int(rng.integers(1, 4)) + ["Cl"] * int(rng.integers(1, 4))
        atoms = Atoms(symbols, rng.random((len(symbols), 3)) * 5, cell=[8, 8, 8], pbc=True)
        own = float(rng.normal())
        atoms.info[ENERGY] = own + sum(OFFSETS[s] for s in symbols)
        force, stress = rng.normal(size=(len(atoms), 3)), np.eye(3)
        atoms.arrays[FORCES] = force + np.array([0.1, 0, 0])
        atoms.info[STRESS] = (stress + np.diag([0.01, 0, 0])).ravel()
        frames.append(atoms), energies.append(own), forces.append(force), stresses.append(stress)
    nothing = np.zeros(number)
    return Predicted(frames, np.array(energies), nothing, forces, np.array(stresses))


def test_planted_differences_come_back() -> None:
    result = agreement(salts())
    assert result.offsets == pytest.approx(OFFSETS, abs=1e-6)
    assert result.energy_without_offsets == pytest.approx(0, abs=1e-3)
    assert result.force_rmse == pytest.approx(100 / np.sqrt(3))
    assert result.force_rmse_by_element == pytest.approx(dict.fromkeys(OFFSETS, 100 / np.sqrt(3)))
    assert result.stress_rmse == pytest.approx(10 / 3)


def test_offsets_of_an_electronvolt_an_atom_are_refused() -> None:
    predicted = salts()
    for atoms in predicted.frames:
        atoms.info[ENERGY] += 2.0 * len(atoms)
    with pytest.raises(RetemperError, match="Na \\+3.50 eV") as caught:
        require_own_kind(agreement(predicted), "pool.extxyz")
    assert "pseudolabel-replay" in str(caught.value.fix)


def test_the_pool_of_the_foundation_is_of_its_kind() -> None:
    result = ask(sample(ROOT / "foundations/pretraining/train.extxyz.xz"))
    assert warning(result, "train") is None
    require_own_kind(result, "train")


def test_sets_of_other_levels_are_said_and_refused(real_data: Path) -> None:
    generated = real_data / "generated"
    assert warning(ask(sample(real_data / "real/mptrj_pbe_22el.extxyz")), "mptrj") is None  # PBE, as the foundation
    ice = ask(sample(generated / "ice_r2scan7net.extxyz"))  # r2SCAN, 0.4 eV/atom off
    assert warning(ice, "ice") is not None
    require_own_kind(ice, "ice")
    for other in ("lpsc_r2scan7net", "spice_gfn2"):
        with pytest.raises(RetemperError):
            require_own_kind(ask(sample(generated / f"{other}.extxyz")), other)
