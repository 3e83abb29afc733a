"""A round commits all that it writes, and can be taken back; by real git, DVC and acquisition."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import run_files
import yaml
from acquiring import project as acquiring
from conftest import ROOT
from promoted import standing

from retemper.active import campaign, undo
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.data import rounds
from retemper.registry import aliases, history

STEP = """
from pathlib import Path
from retemper.records.trained_model import TrainedModel
from retemper.registry import history

made = len(list(Path("data/rounds").glob("*.dvc")))
Path("runs/seen.txt").write_text(f"{made} rounds")
before = history.read(Path.cwd())
move = history.new(before, "other", "champion", TrainedModel("0" * 64, "naive", made), "1", "gates", "lowest")
history.append(Path.cwd(), [move])
"""


def commit(root: Path, message: str) -> None:
    vcs.git(root, "add", "-A")
    vcs.git(root, "commit", "-qm", message)


def log(root: Path) -> list[str]:
    return [line.partition(":")[0] for line in vcs.git(root, "log", "--format=%s").splitlines()]


@pytest.fixture
def repository(tmp_path: Path, tiny_model: Path) -> Path:
    """A project with one stage, which depends on the rounds and moves an alias; committed before the graph has run."""
    root = tmp_path / "project"
    root.mkdir()
    acquiring(root, tiny_model)
    run_files.write_training(root, "naive", {1: tiny_model, 2: tiny_model})
    shutil.copy(ROOT / ".gitignore", root / ".gitignore")
    (root / "step.py").write_text(STEP)
    stage = {"cmd": "python step.py", "deps": ["data/rounds"], "outs": ["runs/seen.txt"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"step": stage}}))
    (root / "data/rounds").mkdir(parents=True)
    (root / "data/rounds/README.md").write_text("rounds\n")
    for command in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@b"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    vcs.dvc(root, "init", "-q")
    (root / "promotions.jsonl").write_text("")
    commit(root, "first")
    vcs.dvc(root, "repro", "--quiet")
    return root


@pytest.mark.hostile("inputs")
def test_a_round_is_undone_and_made_again(repository: Path) -> None:
    """Rounds, notes, dvc.lock and outputs are those of before; the history only grows; the tree is clean throughout."""
    root = repository
    assert campaign.round_once(Project.here(root)) == 1
    assert log(root) == ["Round 1 of salt", "Before round 1 of salt", "first"]
    assert vcs.git(root, "status", "--porcelain") == ""
    assert campaign.round_once(Project.here(root)) == 2  # the history that the first wrote does not stand in its way
    moves = history.read(root)
    assert (root / "runs/seen.txt").read_text() == "2 rounds" and len(moves) == 3
    labels = (root / "data/rounds/002/labelled.extxyz").read_bytes()

    assert undo.undo(Project.here(root)) == 2
    assert vcs.git(root, "status", "--porcelain") == ""
    assert vcs.git(root, "diff", "--name-only", "HEAD~2", "HEAD") == "promotions.jsonl"
    assert (root / "runs/seen.txt").read_text() == "1 rounds" and rounds.numbers(root / rounds.FOLDER) == [1]
    assert [result.round for result in campaign.read_history(Project.here(root)).rounds] == [1]
    assert history.read(root) == moves

    assert campaign.round_once(Project.here(root)) == 2
    assert (root / "data/rounds/002/labelled.extxyz").read_bytes() == labels
    assert log(root)[:3] == ["Round 2 of salt", "Undo round 2 of salt", "Round 2 of salt"]


@pytest.mark.hostile("inputs")
def test_what_stands_in_the_way_of_undoing_is_said(repository: Path) -> None:
    root = repository
    campaign.round_once(Project.here(root))
    here = vcs.git(root, "rev-parse", "HEAD")
    labelled = root / "data/rounds/001/labelled.extxyz"
    kept = labelled.read_bytes()
    labelled.write_bytes(kept + b"\n")
    with pytest.raises(RetemperError, match="not those that are committed"):
        undo.undo(Project.here(root))
    labelled.write_bytes(kept)
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "seeds: [1]\n")
    with pytest.raises(RetemperError, match=r"params\.yaml"):
        undo.undo(Project.here(root))
    vcs.git(root, "checkout", "--", "params.yaml")
    lock = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(lock + "# mine\n")
    with pytest.raises(RetemperError, match="Files of round 1 differ") as found:
        undo.undo(Project.here(root))
    assert "dvc.lock" in str(found.value)
    commit(root, "another state of the graph")
    with pytest.raises(RetemperError, match=r"(?s)later commit builds upon round 1.*another state of the graph"):
        undo.undo(Project.here(root))
    vcs.git(root, "revert", "--no-edit", "HEAD")  # as the message says
    with pytest.raises(RetemperError, match="builds upon"):
        undo.undo(Project.here(root))
    vcs.git(root, "reset", "-q", "--hard", here)
    (root / "notes.md").write_text("of no matter")
    commit(root, "notes")
    plan = root / ".cache/rounds/002/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}")
    with pytest.raises(RetemperError, match="Round 2 has begun"):
        undo.undo(Project.here(root))
    plan.unlink()
    assert undo.undo(Project.here(root)) == 1 and (root / "notes.md").is_file()


@pytest.mark.hostile("kills")
def test_undoing_goes_on_after_a_kill(repository: Path) -> None:
    """The steps of `undo` up to each point by hand, and then the whole."""
    root = repository
    campaign.round_once(Project.here(root))
    here = vcs.git(root, "rev-parse", "HEAD")
    for steps in (1, 2, 3):
        vcs.git(root, "reset", "-q", "--hard", here)
        vcs.dvc(root, "checkout", "--quiet")
        assert (root / "data/rounds/001/round.json").is_file() and (root / "runs/seen.txt").read_text() == "1 rounds"
        shutil.rmtree(root / "data/rounds/001")
        if steps > 1:
            vcs.git(root, "restore", "--source=HEAD^", "--staged", "--worktree", "--", "dvc.lock", "data/rounds")
        if steps > 2:
            vcs.dvc(root, "checkout", "--quiet")
        assert undo.undo(Project.here(root)) == 1
        assert vcs.git(root, "status", "--porcelain") == "" and log(root)[0] == "Undo round 1 of salt"
        assert (root / "runs/seen.txt").read_text() == "0 rounds" and rounds.next_number(root / rounds.FOLDER) == 1
    with pytest.raises(RetemperError, match="no round to undo"):
        undo.undo(Project.here(root))


@pytest.mark.hostile("inputs")
def test_aliases_go_back_to_who_had_them(project: Path) -> None:
    """In a real registry: what the round's gates moved goes back, what a person decided since stays."""
    settings = load_settings(project / "params.yaml")
    aliases.move(project, "salt", "champion", "1", "gates", "first")
    before = history.read(project)
    aliases.move(project, "salt", "champion", "3", "gates", "of the round")
    aliases.move(project, "salt", "challenger", "2", "gates", "of the round")
    undo._give_back(Project(project, settings), 1, before)
    assert standing(project) == {"champion": "1", "challenger": None}
    undo._give_back(Project(project, settings), 1, before)
    moves = history.read(project)
    assert len(moves) == 5 and moves[-1].reason == "round 1 was undone"
    aliases.move(project, "salt", "champion", "3", "override", "mine")
    undo._give_back(Project(project, settings), 1, before)
    assert standing(project)["champion"] == "3"
