"""Structures that MACE publishes for replay, as a pool: fetched, read by their own keys, remembered."""

from __future__ import annotations

import io
from pathlib import Path

import file_server
import numpy as np
import prepared
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from retemper.config import foundation_lock, foundations
from retemper.core import downloads
from retemper.data.frames import ENERGY, FORCES
from retemper.models import predict
from retemper.prepare import inputs, pools
from retemper.records.inputs import StageInputs

NAME = "matpes_pbe"  # whose frames have no stress


def test_published_structures_are_a_pool(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the tiny model under the keys of the published files; DVC sees them by what the lock says."""
    frames = [molecule(name) for name in ("CH3OH", "NH3", "CH4", "C2H6", "H2O", "CH3Cl")]
    labels = predict.predict(tiny_model, frames, backend="torch")
    for atoms, energy, forces in zip(frames, labels.energy, labels.forces, strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
    text = io.StringIO()
    write(text, frames, format="extxyz")
    settings = {"replay": {"pools": [NAME], "number": 2, "valid": 1}, "dataset": {"files": ["some.extxyz"]}}
    settings["dataset"] |= {"level_of_theory": "test"}  # type: ignore[operator]
    (tmp_path / "some.extxyz").touch()
    project = prepared.project(tmp_path, tiny_model, **settings)
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    with file_server.running() as server:
        monkeypatch.setenv(downloads.MIRROR, server.address)
        server.files["/" + foundations.structures()[NAME].url.split("/", 3)[3]] = text.getvalue().encode()
        inputs.run(project)
    monkeypatch.setenv(downloads.OFFLINE, "1")
    locked = foundation_lock.read(tmp_path).structures[NAME].sha256
    assert locked in StageInputs.read(project.inputs("replay")).files.values()
    (pool,) = pools.read(project, [])
    assert pool.labelled and pool.sha256 == locked and pool.source.name == NAME
    for atoms, energy, forces in zip(pool.frames, labels.energy, labels.forces, strict=True):
        assert atoms.info[ENERGY] == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(atoms.arrays[FORCES], forces, atol=1e-6)
    path = tmp_path / foundation_lock.LOCK
    path.write_text(path.read_text().replace(locked, "a" * 64))
    assert inputs.run(project) == ["replay: replay.pools, published: matpes_pbe"]
