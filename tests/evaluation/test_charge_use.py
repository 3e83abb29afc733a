"""Charge and spin where models are used: calculators, metrics, explorers, labels by hand, served requests, exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import molecule
from run_files import write_evaluation, write_preparation, write_project, write_training

import retemper
from retemper.active import explored, manual
from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.data import charge
from retemper.data.charge import CHARGE, SPIN
from retemper.data.frames import ENERGY, FORCES
from retemper.evaluation.robustness import metrics
from retemper.evaluation.robustness.context import Context
from retemper.evaluation.robustness.metrics import observables, retention, short_range
from retemper.models import evaluators, predict, symmetrix
from retemper.simulation import dynamics, engine


def water(**info: Any) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


STATES: list[dict[str, Any]] = [{}, {"charge": 1, "spin": 2}, {CHARGE: 1, SPIN: 2}, {}, {CHARGE: -1}]


@pytest.fixture(scope="module")
def right(ionic: Path) -> np.ndarray:
    """Energies of water in `STATES`, by MACE's own calculator in its own spelling."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(ionic), device="cpu", default_dtype="float64")
    states = [{"charge": charge.charge_of(water(**i)), "spin": charge.spin_of(water(**i)) or 1} for i in STATES]
    return np.array([calculator.get_potential_energy(water(**i)) for i in states])


# ------------------------------------------------------------------ robustness


def test_evaluators_ask_at_the_charge_of_each_structure(ionic: Path, right: np.ndarray) -> None:
    """ASE keeps results of equal positions: the ion after its molecule must not get them."""
    frames = [water(**info) for info in STATES]
    for spec in (
        str(ionic),
        f"ase:mace.calculators:MACECalculator(model_paths={str(ionic)!r}, default_dtype='float64')",
    ):
        assert evaluators.describe(spec).open()(frames).energy == pytest.approx(right, abs=1e-9)
    assert np.unique(right.round(6)).size == 3


def test_a_calculator_that_keeps_results_is_asked_anew() -> None:
    """EMT plus the charge in eV; ASE's own check of changes does not see info."""
    found = evaluators.describe("ase:faulty:Ionised()").open()
    frames = [Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]], info=info) for info in ({}, {CHARGE: 1}, {"charge": -1}, {})]
    energy = found(frames).energy
    assert energy - energy[0] == pytest.approx([0, 1, -1, 0])


def test_charge_and_spin_decide_a_task() -> None:
    subject = evaluators.describe("ase:ase.calculators.emt:EMT()")
    keys = [engine.Task(metrics.load, subject, {"atoms": water(**info)}, "x").key for info in STATES]
    assert keys[1] == keys[2] and keys[0] == keys[3] and len(set(keys)) == 3
    assert engine.Task(metrics.load, subject, {"atoms": water(charge=0)}, "x").key == keys[0]


def test_metrics_keep_charge_and_spin(ionic: Path) -> None:
    ion = water(charge=1, spin=2)
    ion.arrays[FORCES] = np.zeros((3, 3))
    subject = evaluators.describe(str(ionic))
    context = Context(subject, (1, 8), frames=[ion], retention=[ion], foundation=subject)
    for name in ("retention", "physics", "md", "short_range"):
        module = metrics.load(name)
        given = [a for task in module.plan(context).values() for a in _atoms(task.arguments)]
        same = [a for a in given if len(a) == 3 and sorted(a.symbols) == ["H", "H", "O"]]
        assert same and all(charge.special(a) == {CHARGE: 1, SPIN: 2} for a in same), name
    assert charge.special(short_range.compress(ion)[3]) == {CHARGE: 1, SPIN: 2}
    assert charge.special(retention._bare(ion)) == {CHARGE: 1, SPIN: 2}
    pair = ion + molecule("H2O", positions=None)
    assert observables._cohesion(Context(subject, (1, 8), frames=[pair], oracle=subject)) == []


def _atoms(value: Any) -> list[Atoms]:
    if isinstance(value, Atoms):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [atoms for part in parts for atoms in _atoms(part)]


def test_physics_of_an_ion_holds_where_it_is_defined(ionic: Path) -> None:
    """A copy of an ion far away is another system: who has the charge? Its symmetries are checked at its charge."""
    module = metrics.load("physics")
    evaluator = evaluators.describe(str(ionic)).open()
    ion = module.symmetry(evaluator, water(charge=1, spin=2), 0)
    assert "extensivity" in module.symmetry(evaluator, water(), 0).checks and "extensivity" not in ion.checks
    assert max(max(off.energy, off.force) for off in ion.checks.values()) < 1e-6
    assert ion.forces < 1e-4


def test_dynamics_and_candidates_keep_charge_and_spin(ionic: Path) -> None:
    start = water(charge=-1, spin=2, group="g")
    evaluator = evaluators.describe(str(ionic)).open()
    run = dynamics.trajectory(evaluator, start, ensemble="nve", steps=2, timestep=0.1, temperature=10.0, stride=1)
    frame = dynamics.frame(run, 1)
    assert charge.special(frame) == {CHARGE: -1, SPIN: 2}
    assert run.potential[0] == pytest.approx(predict.predict(ionic, [start]).energy[0], abs=1e-9)
    candidate = explored.descend(start, frame, "md", "p")
    assert charge.info_of(candidate) == {CHARGE: -1, SPIN: 2} and candidate.info["group"] == "g"


def test_symmetrix_is_not_asked_for_a_model_that_reads_charge(ionic: Path) -> None:
    assert "total_charge" in str(symmetrix.unknown_architecture(ionic))


# ------------------------------------------------------------------ labels by hand


def test_labels_by_hand_belong_to_their_charge(tmp_path: Path) -> None:
    chosen = [water(), water(charge=1)]
    silent = water()
    labels: dict[int, Atoms] = {}
    with pytest.raises(RetemperError, match="could be several"):
        manual._match(chosen, [silent], labels, tmp_path)
    for k, frame in enumerate([water(charge=0), water(**{CHARGE: 1, SPIN: 2})]):
        frame.info[ENERGY], frame.arrays[FORCES] = float(k), np.zeros((3, 3))
        manual._match(chosen, [frame], labels, tmp_path)
    assert [labels[k].info[ENERGY] for k in (0, 1)] == [0.0, 1.0]
    manual._match(chosen[1:], [silent], {}, tmp_path)  # there is no other that it could be
    with pytest.raises(RetemperError, match="none of those"):
        manual._match(chosen[1:], [water(charge=-1)], {}, tmp_path)


# ------------------------------------------------------------------ registered models


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, ionic: Path) -> Path:
    from retemper.registry import register

    root = tmp_path_factory.mktemp("registered")
    settings = write_project(root, ionic, ["naive"], [1])
    write_preparation(root)
    write_training(root, "naive", {1: ionic})
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {1: 24.0}, {1: 400.0}, 50.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        register.run(Project(root, settings), "naive")
    return root


def test_a_loaded_model_reads_both_spellings(project: Path, right: np.ndarray) -> None:
    calculator = retemper.load("salt/1", root=project, device="cpu")
    found = [calculator.get_potential_energy(water(**info)) for info in STATES]
    assert found == pytest.approx(right.tolist(), abs=1e-9)
    atoms = water()
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.info["total_charge"] = 1
    atoms.info["spin"] = 2
    assert atoms.get_potential_energy() == pytest.approx(right[1], abs=1e-9)
    with pytest.raises(ValueError, match="no clear total charge"):
        calculator.get_potential_energy(water(charge=1, total_charge=0))


def test_served_requests_have_charge_and_spin(
    project: Path, right: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    from retemper.tracking.store import connect, tracking_uri

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(project))
    client: Any = connect(project)
    place = client.get_logged_model(client.get_model_version("salt", "1").source.removeprefix("models:/"))
    model = mlflow.pyfunc.load_model(place.artifact_location)
    atoms = water()
    row = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    answer = model.predict(pd.DataFrame([row | info for info in STATES]))
    assert answer["energy"].tolist() == pytest.approx(right.tolist(), abs=1e-9)
    alone = model.predict(pd.DataFrame([row | STATES[1]]))  # whole numbers, no missing ones
    assert alone["energy"][0] == pytest.approx(right[1], abs=1e-9)
    for wrong in ({"charge": 1, CHARGE: 0}, {"spin": 0.5}, {"charge": "plus"}):
        with pytest.raises(Exception, match="structure 0: no clear"):
            model.predict(pd.DataFrame([row | wrong]))


@pytest.mark.parametrize("to", ["lammps", "lammps-mliap", "torch-sim"])
def test_programs_that_cannot_say_the_charge_are_refused(project: Path, to: str, tmp_path: Path) -> None:
    from retemper.registry import export

    with pytest.raises(RetemperError, match="total_charge and total_spin"):
        export.export(project, "salt/1", to, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_export_says_what_it_reads(project: Path, tmp_path: Path) -> None:
    from retemper.core.files import read_json
    from retemper.registry import export

    export.export(project, "salt/1", "ase", tmp_path)
    assert read_json(tmp_path / "salt-1-ase.json")["reads"] == {
        CHARGE: "atoms.info['charge']",
        SPIN: "atoms.info['spin']",
    }
