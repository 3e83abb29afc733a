"""``retemper init --from``: a project that begins as another one, and shares nothing with it afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from retemper.cli import main
from retemper.config.project import Project
from retemper.core import vcs
from retemper.projects import create


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A project whose data DVC keeps, with a promotion in its history and a strategy of its user's."""
    root = tmp_path / "other"
    create.write_example(root)
    (root / ".git/info/exclude").write_text("")
    git(root, "rm", "-q", "--cached", "data/raw/nacl.extxyz.xz")
    vcs.dvc(root, "add", "-q", "data/raw/nacl.extxyz.xz")
    (root / "promotions.jsonl").write_text(json.dumps({"model": "nacl", "version": "1"}) + "\n")
    (root / "strategies/mine.yaml").write_text((root / "strategies/naive.yaml").read_text())
    git(root, "add", "-A")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "mine")
    return root


def test_settings_strategies_and_data_are_there(
    other: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main.main(["init", "fresh", "--from", "other"])
    said = capsys.readouterr().out
    root = tmp_path / "fresh"
    project = Project.here(root)
    assert project.settings.system == "fresh" and "note: `dvc repro` runs" not in said
    assert (root / "params.yaml").read_text() == (other / "params.yaml").read_text().replace(
        "system: nacl ", "system: fresh ", 1
    )
    assert (root / "strategies/mine.yaml").is_file() and not (root / "promotions.jsonl").exists()
    assert (root / "data/raw/nacl.extxyz.xz").read_bytes() == (ROOT / "data/raw/nacl.extxyz.xz").read_bytes()
    assert git(root, "status", "--porcelain") == "" and git(root, "rev-list", "--count", "HEAD") == "1"
    assert git(other, "rev-parse", "HEAD") in git(root, "log", "-1", "--format=%s") and git(root, "remote") == ""
    assert vcs.is_as_tracked(root, "data/raw/nacl.extxyz.xz.dvc")


def test_code_that_is_not_retempers_is_said(other: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with (other / "pipelines/dataset.py").open("a") as script:
        script.write("print('mine')\n")
    git(other, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-a", "-m", "mine")
    main.main(["init", str(tmp_path / "fresh"), "--from", str(other)])
    assert "code that is not retemper's: look at pipelines/dataset.py" in capsys.readouterr().out


def test_data_that_cannot_be_fetched_are_said(other: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its cache is gone, and the remote in its settings holds nothing."""
    for path in (other / ".dvc/cache").rglob("*"):
        if path.is_file():
            path.unlink()
    main.main(["init", str(tmp_path / "fresh"), "--from", str(other)])
    assert "DVC could not fetch data/raw/nacl.extxyz.xz" in capsys.readouterr().out
    assert not (tmp_path / "fresh/data/raw/nacl.extxyz.xz").exists()


@pytest.mark.hostile("messages")
@pytest.mark.parametrize("what", ["nothing", "no project", "broken settings", "data too"])
def test_what_is_no_project_leaves_nothing_behind(
    what: str, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    expected = {
        "nothing": "clone",
        "no project": "it has no params.yaml",
        "broken settings": "epochs",
        "data too": "from one place",
    }[what]
    if what == "no project":
        git(other, "rm", "-q", "params.yaml")
    if what == "broken settings":
        text = (other / "params.yaml").read_text()
        (other / "params.yaml").write_text(text.replace("epochs: 10", "epochs: many"))
    if what in ("no project", "broken settings"):
        git(other, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-a", "-m", "mine")
    source = tmp_path / "nowhere" if what == "nothing" else other
    more = ["--example"] if what == "data too" else []
    with pytest.raises(SystemExit):
        main.main(["init", str(tmp_path / "fresh"), "--from", str(source), *more])
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "fresh").exists() and not list(tmp_path.glob(".*fresh"))
