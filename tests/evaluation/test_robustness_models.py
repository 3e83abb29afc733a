"""MACE models in the suite: back ends that agree, the right head; the command, the stage and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from conftest import ROOT
from run_files import write_evaluation, write_project, write_training

from retemper import report
from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core.errors import RetemperError
from retemper.core.files import read_json
from retemper.data.frames import write_frames
from retemper.evaluation.robustness import metrics, stage, suite
from retemper.evaluation.robustness.context import Context
from retemper.models import evaluators, symmetrix
from retemper.models.predict import predict
from retemper.records.robustness import ModelRobustness
from retemper.records.runs import read_results
from retemper.simulation import engine

MINI = ROOT / "foundations/mini.model"


def waters(number: int = 6, seed: int = 0) -> list[Atoms]:
    frames = []
    for k in range(number):
        one, two = molecule("H2O"), molecule("H2O")
        two.positions += [0.1 * k, 0.2, 2.9]
        pair = one + two
        pair.rattle(0.05, seed=seed + k)
        frames.append(pair)
    return frames


# ------------------------------------------------------------------ back ends


def test_torch_is_maces_calculator(tiny_model: Path) -> None:
    from mace.calculators import MACECalculator

    frames = waters(3)
    found = evaluators.describe(str(tiny_model)).open()(frames)
    calculator = MACECalculator(model_paths=str(tiny_model), device="cpu", default_dtype="float64")
    for k, atoms in enumerate(frames):
        atoms.calc = calculator
        assert found.energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(found.forces[k], atoms.get_forces(), atol=1e-9)


def test_an_element_that_the_model_lacks_is_a_reason(tiny_model: Path) -> None:
    found = evaluators.describe(str(tiny_model)).open()([molecule("H2O"), molecule("SiH4")])
    assert found.reasons == ["", "the model lacks Si"]


def test_symmetrix_is_used_where_it_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("symmetrix")
    monkeypatch.setattr(symmetrix, "CACHE", tmp_path / "symmetrix")
    here = Context(evaluators.describe(str(MINI)), (1, 8), frames=waters())
    frames = suite.referees(here)
    assert len(frames) == suite.REFEREES
    subject, why = evaluators.fastest(here.subject, frames, here.elements, tmp_path)
    assert subject.backend == "symmetrix", why
    cells = [atoms for atoms in frames if atoms.pbc.all()]
    fast, slow = subject.open()(cells, True), here.subject.open()(cells, True)
    np.testing.assert_allclose(fast.stress, slow.stress, atol=1e-6)
    np.testing.assert_allclose(np.vstack(fast.forces), np.vstack(slow.forces), rtol=1e-5, atol=1e-5)


def test_symmetrix_is_replaced_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extractor's default of 256 spline points is off by 1e-3 eV/A: that must not be trusted."""
    pytest.importorskip("symmetrix")
    monkeypatch.setattr(symmetrix, "CACHE", tmp_path / "symmetrix")
    monkeypatch.setattr(symmetrix, "SPLINE_POINTS", 60)
    here = Context(evaluators.describe(str(MINI)), (1, 8), frames=waters())
    subject, why = evaluators.fastest(here.subject, suite.referees(here), here.elements, tmp_path)
    assert subject.backend == "torch" and "off by" in why


def test_another_architecture_stays_with_torch(tiny_model: Path, tmp_path: Path) -> None:
    subject, why = evaluators.fastest(evaluators.describe(str(tiny_model)), waters(2), (1, 8), tmp_path)
    assert subject.backend == "torch" and "does not apply" in why


# ------------------------------------------------------------------ heads


def test_the_target_head_is_taken_and_a_wrong_one_is_found(tiny_multihead: Path, tmp_path: Path) -> None:
    """The heads' free atoms differ by some 0.5 eV: physics says how far off each head's are."""
    right = evaluators.describe(str(tiny_multihead))
    assert right.head == "Default" and [other.head for other in stage.heads_of(right)] == ["pt_head"]
    wrong = evaluators.describe(str(tiny_multihead), head="pt_head")
    assert right.identity != wrong.identity
    free = dict(zip((1, 8), right.open()([Atoms("H"), Atoms("O")]).energy.tolist(), strict=True))
    module = metrics.load("physics")
    off = []
    for subject in (right, wrong):
        here = Context(subject, (1, 8), free_atoms=free)
        tasks = module.plan(here)
        results = dict.fromkeys(tasks, engine.Failure("left out"))
        results |= suite.compute({"far": tasks["far"]}, workers=1, cache=tmp_path)
        off.append(module.measure(here, results).details["free_atoms"])
    assert off[0] == pytest.approx({"H": 0.0, "O": 0.0}, abs=1e-6)
    other = predict(tiny_multihead, [Atoms("H"), Atoms("O")], head="pt_head", backend="torch").energy
    assert list(off[1].values()) == pytest.approx(other - list(free.values()), abs=1e-6)
    assert min(abs(value) for value in off[1].values()) > 0.1


def test_an_unknown_head_lists_the_heads(tiny_multihead: Path) -> None:
    with pytest.raises(RetemperError, match="pt_head"):
        evaluators.describe(str(tiny_multihead), head="target")


# ------------------------------------------------------------------ the command


def test_the_suite_takes_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GFN2-xTB through ASE: its walls are sound, its symmetries hold."""
    monkeypatch.chdir(tmp_path)
    write_frames("waters.extxyz", waters(2))
    main.main("evaluate gfn2 --calculator ase:retemper.systems.xtb:calculator() --metrics short_range"
             " --structures waters.extxyz --workers 1 --out out".split())  # fmt: skip
    measured = ModelRobustness.read(tmp_path / "out/metrics.json").metrics["short_range"]
    assert measured.details["dimers_sound"] == "3 of 3"
    assert (tmp_path / "out/short_range-points.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("evaluate x --calculator ase:ase.calculators.emt:EMT()", "Which elements"),
        ("evaluate nothing.model", "does not exist"),
        ("evaluate x --calculator ase:ase.calculators.emt:EMT() --elements Xx", "Unknown element"),
        ("evaluate x --calculator ase:ase.calculators.emt:EMT() --elements Cu --metrics rs", "did you mean"),
        ("evaluate x --calculator ase:nowhere:Thing() --elements Cu", "cannot be made"),
        ("evaluate x --calculator ase:ase.calculators.emt:EMT() --elements Cu --oracle tblite", "is no calculator"),
    ],
)
def test_bad_input_is_a_message(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main.main(arguments.split())
    assert message in capsys.readouterr().err


def test_elements_that_the_model_lacks_are_a_message(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["evaluate", str(tiny_model), "--elements", "Si", "O"])
    assert "lacks elements that are to be tested: Si" in capsys.readouterr().err


def test_metrics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["metrics"])
    text = capsys.readouterr().out
    assert all(f"{name} (" in text for name in metrics.names())


# ------------------------------------------------------------------ the stage, and what comes after it


def test_stage_report_and_metrics(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    write_project(tmp_path, tiny_model, ["naive"], [1])
    write_training(tmp_path, "naive", {1: tiny_model})
    for name, seed in (("foundation", 0), ("naive", 1)):
        write_evaluation(tmp_path, name, {seed: 50.0}, {seed: 60.0}, 50.0)
    params: dict[str, Any] = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["robustness"] = {"metrics": ["retention", "observables"], "workers": 1, "seeds": [1]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_settings(tmp_path / "params.yaml")
    frames = waters()
    labels = predict(tiny_model, frames)
    for atoms, forces, energy in zip(frames, labels.forces, labels.energy, strict=True):
        atoms.arrays["REF_forces"], atoms.info["REF_energy"] = forces + 0.1, float(energy)
    write_frames(tmp_path / "foundations/retention.extxyz", frames)
    content = stage.run(Project(tmp_path, settings), "naive")
    assert content.summary["retention"].value == 1.0  # the foundation itself
    assert content.summary["observables"].value is None
    assert (tmp_path / "runs/robustness/naive/seed-1/retention-types.csv").is_file()

    results = read_results(Project(tmp_path, settings))
    assert "robustness-foundation" in results.missing and "robustness@naive" not in results.missing
    assert results.flat("naive", 1)["robustness.retention"] == 1.0
    folder = report.run(Project(tmp_path, settings))
    assert read_json(folder / "metrics.json")["naive.robustness.retention"] == 1.0
    assert "naive,retention,1.0" in (folder / "robustness.csv").read_text()
    assert "Away from the test set" in (folder / "report.md").read_text()
    with pytest.raises(RetemperError, match="seed of naive"):
        own = settings.robustness.model_copy(update={"seeds": [7]})
        stage.run(Project(tmp_path, settings.model_copy(update={"robustness": own})), "naive")
