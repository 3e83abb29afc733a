"""A round from models to its folder, and what a campaign notes, counts and refuses; the whole loop where it is slow."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import acquiring
import numpy as np
import prepared
import pytest
import run_files
from acquiring import calibration, waters, write_round
from ase import Atoms
from conftest import ROOT, as_trained, build_tiny

from retemper.active import acquire, campaign, choose, manual, source, status
from retemper.active.calibrate import calibrate
from retemper.active.explored import Explored
from retemper.active.label import put
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import sha256, write_json
from retemper.data import rounds
from retemper.data.frames import ENERGY, FORCES, read_frames, write_frames
from retemper.finetune import planning
from retemper.records.campaign import Campaign, RoundResult
from retemper.records.trained_model import TrainedModel
from retemper.records.training import Effective
from retemper.systems.xtb import calculator


def test_a_round_holds_what_was_labelled_and_why(tmp_path: Path, tiny_model: Path) -> None:
    project = acquiring.project(tmp_path, tiny_model)
    folder = project.rounds / "001"
    about = acquire.make(project, 1)
    labelled = rounds.frames(project.rounds, 1)
    assert about == rounds.read(project.rounds, 1) and len(labelled) == 5
    for atoms, entry in zip(labelled, about.labelled, strict=True):
        work = Atoms(atoms.numbers, atoms.positions)
        work.calc = calculator()
        assert atoms.info[ENERGY] == pytest.approx(work.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(atoms.arrays[FORCES], work.get_forces(), atol=1e-6)
        noted = entry.model_dump()
        assert noted["explorer"] == "rattle" and noted["selector"] == "combined" and noted["expected_error"] > 0
        assert noted["group"].split()[0] in ("train", "valid")  # never from the test set
    assert about.models == {seed: sha256(project.model("naive", seed)) for seed in (1, 2)}
    assert about.lead == 2  # the lower validation loss
    assert about.level_of_theory == "GFN2-xTB" and about.oracle_check and about.oracle_check.energy < 1e-6
    assert 0 <= about.calibration.miscalibration <= 0.5
    assert about.prospective.alpha == about.calibration.alpha  # what was expected is judged
    for name in ("calibration.png", "prospective.png"):
        assert (folder / name).stat().st_size > 1000
    assert not (tmp_path / ".cache/rounds/001").exists()
    before = (folder / "round.json").read_bytes()
    acquire.make(project, 1)  # done is done
    assert (folder / "round.json").read_bytes() == before
    again = acquire.run(project)  # what is labelled is not asked for again
    first = {atoms.positions.tobytes() for atoms in labelled}
    assert not first & {atoms.positions.tobytes() for atoms in rounds.frames(tmp_path / rounds.FOLDER, 2)}
    assert again.round == 2 and again.seed != about.seed
    assert rounds.numbers(project.rounds) == [1, 2]
    assert campaign.spent(project) == 10


def test_an_explorer_that_is_listed_twice_explores_twice(tmp_path: Path, tiny_model: Path) -> None:
    """The first as if it were alone; the second on paths and with random numbers of its own."""
    one = {"name": "rattle", "options": {"amplitudes": [0.1]}}
    project = acquiring.project(tmp_path, tiny_model, explorers=[one, copy.deepcopy(one)], candidates=20)
    here, options = source.from_project(project), project.settings.acquire
    frames = choose.explore(here, options, 7, project.cache("active")).frames
    alone = options.model_copy(update={"explorers": options.explorers[:1], "candidates": 10})
    first = choose.explore(here, alone, 7, project.cache("active")).frames
    assert len(frames) == 20 and len({atoms.info["path"] for atoms in frames}) == 20
    assert [atoms.positions.tolist() for atoms in frames[:10]] == [atoms.positions.tolist() for atoms in first]
    assert len({atoms.positions.tobytes() for atoms in frames}) == 20


def test_a_path_ends_where_the_model_is_lost_even_if_that_frame_is_turned_away(
    tmp_path: Path, tiny_model: Path
) -> None:
    project = acquiring.project(tmp_path, tiny_model, trust=1.0)
    here, settings = source.from_project(project), project.settings
    path = waters(3, 5, "new")
    path[1].positions[3:] -= (0.0, 0.0, 1.6)  # one molecule onto the other
    for atoms in path:
        atoms.info["path"] = "md-000"
    estimate = choose.estimator(here, settings.acquire)
    largest = [part.max() for part in estimate(path)]
    assert largest[1] > 3 * max(largest[0], largest[2])
    rng = np.random.default_rng(0)  # expected errors are right, and that of the second is too large
    unit = float(np.sqrt(largest[1] * max(largest[0], largest[2])))
    u = [rng.uniform(0.1, 2.0, 50) * unit for _ in range(60)]
    calibration = calibrate(
        u, [part[:, None] / unit * rng.normal(size=(50, 3)) for part in u], [str(k) for k in range(len(u))]
    )
    forces = [np.linalg.norm(f, axis=1).max() for f in source.forces(here, path)]
    assert forces[1] > forces[2]
    limit = settings.dataset.model_copy(update={"max_force": (forces[1] + max(forces[0], forces[2])) / 2})
    settings = settings.model_copy(update={"dataset": limit})
    found, why = choose.admissible(Explored(frames=path), estimate, calibration, here, settings, [])
    assert [atoms.positions.tolist() for atoms in found] == [path[0].positions.tolist()]
    assert why == {"beyond acquire.trust": 1, "with predicted forces above dataset.max_force": 1}
    assert found[0].info["expected_error"] == pytest.approx(largest[0] / unit, rel=0.05)


def by_hand(root: Path, model: Path, **acquired: Any) -> tuple[Project, list[Atoms]]:
    """A round that waits for labels by hand, and what was given out: five new structures, two of the training set."""
    oracle = {"name": "manual", "options": {"level_of_theory": "GFN2-xTB"}}
    project = acquiring.project(root, model, oracle, **acquired)
    with pytest.raises(RetemperError, match="structures of round 1 wait"):
        acquire.make(project, 1)
    return project, read_frames(project.to_label / "001/structures.extxyz")


def answer(root: Path, given: list[Atoms], offset: float = 0.0, right: Any = ()) -> None:
    """GFN2-xTB labels, but for an offset (eV/atom) of those that are not `right`."""
    made = []
    for atoms in given:
        work = Atoms(atoms.numbers, atoms.positions)
        work.calc = calculator()
        off = 0.0 if atoms.positions.round(6).tobytes() in right else offset * len(atoms)
        made.append(put(atoms.copy(), work.get_potential_energy() + off, work.get_forces(), None))
    write_frames(root / "data/to-label/001/labelled.extxyz", made)


def places(frames: list[Atoms]) -> set[bytes]:
    return {atoms.positions.round(6).tobytes() for atoms in frames}


def test_a_round_waits_for_labels_and_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    project, given = by_hand(tmp_path, tiny_model)
    with pytest.raises(RetemperError, match="wait for your labels"):  # the same structures, not others
        acquire.make(project, 1)
    assert campaign.unfinished(project) == 1
    changed = project.settings.acquire.model_copy(update={"labels": 7})
    with pytest.raises(RetemperError, match="settings of `acquire` changed"):
        acquire.make(Project(tmp_path, project.settings.model_copy(update={"acquire": changed})), 1)
    known = places(read_frames(tmp_path / "runs/dataset/train.extxyz"))
    new = [atoms for atoms in given if not places([atoms]) & known]
    assert len(given) == 7 and len(new) == 5  # two of the training set are to be labelled again
    assert all(not atoms.info for atoms in given)  # which nothing tells from the others
    answer(tmp_path, new)
    with pytest.raises(RetemperError, match="needed to verify the others"):
        acquire.make(project, 1, partial=True)
    lost = new[0].positions
    answer(tmp_path, [atoms for atoms in given if not np.allclose(atoms.positions, lost)])
    acquire.make(project, 1, partial=True)
    assert len(rounds.frames(tmp_path / rounds.FOLDER, 1)) == 4
    assert rounds.frames(tmp_path / rounds.FOLDER, 1, "failed")[0].info["reason"] == "no label came back"


def test_labels_of_another_zero_are_refused_and_a_corrected_file_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    project, given = by_hand(tmp_path, tiny_model)
    answer(tmp_path, given, offset=0.5)
    with pytest.raises(RetemperError, match="2 of 2 structures whose labels are known") as error:
        acquire.make(project, 1)
    assert str(error.value).count("energy +0.5 eV/atom") == 2
    assert rounds.numbers(project.rounds) == []
    answer(tmp_path, given)
    acquire.make(project, 1)
    labelled = rounds.frames(tmp_path / rounds.FOLDER, 1)
    assert len(labelled) == 5 and not places(labelled) & places(read_frames(tmp_path / "runs/dataset/train.extxyz"))


def test_a_correction_replaces_labels_that_a_round_was_made_with(tmp_path: Path, tiny_model: Path) -> None:
    """Also where the data set has the earlier ones already."""
    project, given = by_hand(tmp_path, tiny_model, verify=0)
    answer(tmp_path, given, offset=0.5)
    acquire.make(project, 1)
    poisoned, before = rounds.frames(tmp_path / rounds.FOLDER, 1), rounds.read(project.rounds, 1)
    acquire.make(project, 1)
    assert rounds.read(project.rounds, 1) == before
    Campaign(rounds=[result(1, 13, 90.0, identity=before.identity)]).write(project.campaign)
    for atoms in poisoned:
        atoms.info["source"] = "data/rounds/001:0"
    train = tmp_path / "runs/dataset/train.extxyz"
    write_frames(train, [*read_frames(train), *poisoned])
    answer(tmp_path, given)
    assert manual.labels_changed(project, 1) and campaign.unfinished(project) == 1
    acquire.make(project, 1)
    now, after = rounds.frames(tmp_path / rounds.FOLDER, 1), rounds.read(project.rounds, 1)
    off = [(b.info[ENERGY] - a.info[ENERGY]) / len(a) for a, b in zip(now, poisoned, strict=True)]
    assert off == pytest.approx([0.5] * len(given), abs=1e-6)
    assert after.identity != before.identity and not manual.labels_changed(project, 1)
    assert not campaign._is_recorded(project, 1)  # its results are those of the labels before


def test_new_labels_that_lie_apart_are_refused_though_the_known_ones_are_right(
    tmp_path: Path, tiny_model: Path
) -> None:
    project, given = by_hand(tmp_path, tiny_model)
    known = places(read_frames(tmp_path / "runs/dataset/train.extxyz"))
    answer(tmp_path, given, offset=3.0, right=known)  # much: the model is not trained
    with pytest.raises(RetemperError, match="5 new labels lie"):
        acquire.make(project, 1)
    answer(tmp_path, given)
    acquire.make(project, 1)


def test_what_is_missing_is_said(tmp_path: Path, tiny_model: Path) -> None:
    project = acquiring.project(tmp_path, tiny_model, {"name": "xtb", "options": {"method": "GFN1-xTB"}})
    with pytest.raises(RetemperError, match="another level of theory"):
        acquire.make(project, 1)
    project = acquiring.project(tmp_path / "b", tiny_model)
    project.summary("naive").unlink()
    with pytest.raises(RetemperError, match="dvc repro"):
        acquire.make(project, 1)


def test_training_may_go_on_from_the_model_that_explored(tmp_path: Path, tiny_model: Path) -> None:
    """The plan's start, and that MACE starts there: its first forces are that model's."""
    from retemper.finetune.mace.train import train
    from retemper.models.mace import atomic_energies

    settings = acquiring.project(tmp_path, tiny_model).settings
    explorer = build_tiny(tmp_path / "explorer.model", ["Default"], seed=4)
    explorer = as_trained(explorer, tmp_path / rounds.FOLDER / "002/model.safetensors")
    for number in (1, 2):
        acquiring.write_round(tmp_path, number)
    prepared.e0s(atomic_energies(explorer)).write(tmp_path / "runs/e0s/e0s.json")
    (tmp_path / "strategies").symlink_to(ROOT / "strategies")
    (plan, _) = planning.plans(Project(tmp_path, settings), "naive")
    assert plan.foundation_sha256 == sha256(tiny_model)
    finetune = settings.finetune.model_copy(update={"start": "last-round", "epochs": 1, "dtype": "float64"})
    settings = settings.model_copy(update={"finetune": finetune})
    (plan, _) = planning.plans(Project(tmp_path, settings), "naive")
    assert plan.foundation_sha256 == sha256(explorer) and plan.foundation_head == "Default"
    train(plan, tmp_path / "training", lambda row: None)
    assert Effective.read(tmp_path / "training/effective.json").ran.start_gap == pytest.approx(0.0, abs=1e-6)
    (scratch, _) = planning.plans(Project(tmp_path, settings), "scratch")
    assert scratch.foundation_sha256 == sha256(tiny_model)


def test_the_champion_that_stands_explores(tmp_path: Path, tiny_model: Path) -> None:
    """Crowned in the last run or before, as long as its strategy is trained."""
    settings = run_files.write_project(tmp_path, tiny_model, strategies=("naive", "replay"), seeds=(1, 2))
    for name in settings.strategies:
        run_files.write_training(tmp_path, name, {1: tiny_model, 2: tiny_model})
    judged = {"naive": (210.0, 2, [True]), "replay": (200.0, 1, [True])}
    standing = TrainedModel("of another run", "naive", 1)

    def found(champion: str | None, before: TrainedModel | None, candidates: Any) -> tuple[str, bool, int]:
        run_files.write_verdict(tmp_path, candidates, champion, before)
        here = source.from_project(Project(tmp_path, settings))
        return here.strategy, here.champion, here.lead_seed

    assert found(None, None, judged) == ("replay", False, 1)  # the best objective
    assert found("replay", standing, judged) == ("replay", True, 1)
    assert found(None, standing, judged) == ("naive", True, 2)
    assert found(None, standing, {"replay": judged["replay"]}) == ("naive", True, 1)  # it is not judged against itself
    gone = TrainedModel("of another run", "freeze", 1)
    assert found(None, gone, judged) == ("replay", False, 1)


@pytest.mark.slow
def test_weights_do_not_start_a_training_that_they_were_trained_to_pass(tmp_path: Path, tiny_model: Path) -> None:
    """The test set gets a group that a kept model was trained on, of this round or of the one before."""
    from retemper.models.mace import atomic_energies

    settings = acquiring.project(tmp_path, tiny_model).settings
    prepared.e0s(atomic_energies(tiny_model)).write(tmp_path / "runs/e0s/e0s.json")
    (tmp_path / "strategies").symlink_to(ROOT / "strategies")
    last = settings.finetune.model_copy(update={"start": "last-round"})
    settings = settings.model_copy(update={"finetune": last})
    project = Project(tmp_path, settings)
    data = tmp_path / "runs/dataset"
    first, test = read_frames(data / "train.extxyz"), read_frames(data / "test.extxyz")
    acquire.make(project, 1)
    planning.plans(Project(tmp_path, settings), "naive")
    with pytest.raises(RetemperError, match="goes back towards the foundation"):
        planning.plans(Project(tmp_path, settings), "naive-interpolated")
    descendants = [
        a for a in rounds.frames(tmp_path / rounds.FOLDER, 1) if a.info["group"] in {b.info["group"] for b in first}
    ]
    write_frames(data / "train.extxyz", [*first[:6], *descendants])
    acquire.make(project, 2)
    planning.plans(Project(tmp_path, settings), "naive")
    write_frames(data / "test.extxyz", [*test, *first[6:]])
    with pytest.raises(RetemperError, match="trained on structures that are now in the test set"):
        planning.plans(Project(tmp_path, settings), "naive")
    foundation = settings.finetune.model_copy(update={"start": "foundation"})
    planning.plans(Project(tmp_path, settings.model_copy(update={"finetune": foundation})), "naive")


# ------------------------------------------------------------------ git, notes, status


def repository(root: Path) -> None:
    for command in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@b"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    (root / ".dvc").mkdir()
    (root / "params.yaml").write_text("a: 1\n")
    vcs.git(root, "add", "params.yaml")
    vcs.git(root, "commit", "-qm", "first")


def test_a_round_commits_its_own_files_alone(tmp_path: Path) -> None:
    repository(tmp_path)
    write_json(tmp_path / "data/campaign.json", {})
    (tmp_path / "notes.txt").write_text("mine")
    vcs.require_clean(tmp_path)
    assert vcs.commit(tmp_path, "Round 1")
    assert not vcs.commit(tmp_path, "Round 1")
    assert vcs.git(tmp_path, "show", "--name-only", "--format=").split() == ["data/campaign.json"]
    (tmp_path / "params.yaml").write_text("a: 2\n")
    with pytest.raises(RetemperError, match="params.yaml"):
        vcs.require_clean(tmp_path)


def test_outside_dvc_nothing_begins(tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="not under DVC"):
        vcs.require_clean(tmp_path)


def result(number: int, train: int, error: float, passed: tuple[bool, ...] = (True, False), **more: Any) -> RoundResult:
    outcomes = [{"metric": "m", "rule": "r", "passed": p} for p in passed]
    content = {
        "round": number,
        "labelled": 4,
        "failed": 1,
        "identity": None,
        "used": 4,
        "unused": {},
        "train": train,
        "valid": 2,
        "test": "t",
        "strategy": "naive",
        "champion": False,
        "force_rmse": {"mean": error, "low": 0.9 * error, "high": 1.1 * error},
        "gates": {"hold": all(passed), "outcomes": outcomes},
        "selector": "combined",
        **more,
    }
    return RoundResult.model_validate(content)


def test_status_tells_what_happened(tmp_path: Path, tiny_model: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for root in (here, there):
        run_files.write_project(root, tiny_model)
        subprocess.run(["git", "-C", str(root), "init", "-q"], check=True)
    write_round(here, 1)
    write_round(here, 2, failed=("timeout: more than 5 s",), calibration=calibration(informative=False))
    noted = [result(0, 10, 200.0), result(1, 14, 150.0), result(2, 18, 100.0)]
    Campaign(rounds=noted, stopped="x").write(here / "data/campaign.json")
    random = [result(k, 10 + 10 * k, error, selector="random") for k, error in enumerate((200.0, 160.0, 99.0))]
    Campaign(rounds=random).write(there / "data/campaign.json")
    text = status.show(Project.here(here), Project.here(there))
    assert "2 rounds, 9 structures labelled or failed" in text
    assert "100.0 [90.0, 110.0]" in text and "1/2" in text
    assert text.count("NOT INFORMATIVE") == 2  # both of round 2
    assert "round 2 failed: timeout: more than 5 s" in text
    assert "for 100.0 meV/A combined needed 18 structures, random needed 30" in text
    assert "stopped: x" in text
    assert (here / "runs" / status.PLOT).read_bytes()[:4] == b"\x89PNG"


def test_an_entry_is_read_from_the_stages(tmp_path: Path, tiny_model: Path) -> None:
    settings = run_files.write_project(tmp_path, tiny_model, seeds=(1, 2))
    run_files.write_preparation(tmp_path)
    run_files.write_training(tmp_path, "naive", {1: tiny_model, 2: tiny_model})
    run_files.write_evaluation(tmp_path, "naive", {1: 90.0, 2: 110.0}, {1: 50.0, 2: 50.0}, 40.0)
    gates = [{"metric": "target.force_rmse", "max": 120}, {"metric": "target.force_rmse", "relative_to": "champion"}]
    content = {**settings.model_dump(), "promotion": {"gates": gates}}
    settings = Settings.model_validate(content)
    run_files.write_verdict(tmp_path, {"naive": (100.0, 1, [True, False])})
    found = campaign.result_of(Project(tmp_path, settings), 0)
    assert found.train == 40 and found.strategy == "naive" and not found.champion
    assert found.force_rmse is not None and found.force_rmse.mean == pytest.approx(100.0)
    assert found.gates.hold  # the one against the champion is no aim
    assert [o.passed for o in found.gates.outcomes] == [True, False]
    assert "1 of 2 gates hold" in found.sentence()


def test_what_was_not_used_is_said_wherever_labels_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    project = Project(tmp_path, run_files.write_project(tmp_path, tiny_model))
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    run_files.write_preparation(tmp_path)
    run_files.write_training(tmp_path, "naive", {1: tiny_model})
    write_round(tmp_path, 1)
    path = tmp_path / "runs/dataset/manifest.json"
    prepared.manifest(rounds=[prepared.joined_round(4, 0, **{"dataset.energy_window": 4})]).write(path)
    noted = campaign.result_of(project, 1)
    assert "0 of 4 labels used (dataset.energy_window 4), 0 failed" in noted.sentence()
    Campaign(rounds=[noted]).write(project.campaign)
    assert "round 1: 0 of 4 labels used (dataset.energy_window 4)" in status.show(project)
    prepared.manifest(rounds=[prepared.joined_round(4, 4)]).write(path)
    assert campaign.result_of(project, 1).sentence().startswith("4 labels, 0 failed")
