"""``retemper upgrade``: a project of an earlier release gets this one's files, and keeps what its user wrote."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from retemper.cli import main
from retemper.core import template
from retemper.projects import create
from retemper.projects.base import FILE, Base, Given

LORA, NAIVE, BASE = "strategies/lora.yaml", "strategies/naive.yaml", "strategies/base.yaml"
OURS = {name: (template.template_root() / name).read_text() for name in (LORA, NAIVE, BASE, "dvc.yaml")}


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that release 0.0.9 made: other rates, a strategy less, a stage script more."""
    root = tmp_path / "mine"
    create.write_example(root)
    base = Base.read(root / FILE)
    files = dict(base.files)
    earlier = {
        BASE: OURS[BASE].replace("lr: 1.0e-3", "lr: 5.0e-3"),
        LORA: OURS[LORA].replace("rank: ", "rank: 1"),
        "pipelines/gone.py": "print('of an earlier release')\n",
    }
    for name, text in earlier.items():
        (root / name).write_text(text)
        files[name] = Given.of(text.encode())
    (root / NAIVE).unlink()
    del files[NAIVE]
    base.model_copy(update={"version": "0.0.9", "files": files}).write(root / FILE)
    commit(root)
    monkeypatch.chdir(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "as it is")


def test_files_that_nobody_touched(project: Path, capsys: pytest.CaptureFixture) -> None:
    main.main(["upgrade"])
    said = capsys.readouterr().out
    assert "from retemper 0.0.9 to" in said and f"{BASE}: renewed" in said and f"{NAIVE}: new" in said
    assert all((project / name).read_text() == text for name, text in OURS.items())
    assert not (project / "pipelines/gone.py").exists()
    commit(project)
    main.main(["upgrade"])
    assert "nothing to do" in capsys.readouterr().out
    assert git(project, "status", "--porcelain") == ""


def test_the_users_lines_stay(project: Path, capsys: pytest.CaptureFixture) -> None:
    """The user changed another line of one file, deleted one, wrote one of a new name, and keeps one that is gone."""
    (project / BASE).write_text((project / BASE).read_text().replace("patience: 2048", "patience: 7   "))
    (project / LORA).unlink()
    (project / NAIVE).write_text("about: my own\n")
    (project / "pipelines/gone.py").write_text("print('mine')\n")
    (project / "strategies/mine.yaml").write_text("about: mine\n")
    commit(project)
    main.main(["upgrade"])
    said = capsys.readouterr().out
    merged = (project / BASE).read_text()
    assert "patience: 7   " in merged and merged.replace("patience: 7   ", "patience: 2048") == OURS[BASE]
    assert not (project / LORA).exists() and f"{LORA}: you deleted it" in said
    assert (project / NAIVE).read_text() == "about: my own\n"
    assert (project / f"{NAIVE}.new").read_text() == OURS[NAIVE]
    assert (project / "pipelines/gone.py").read_text() == "print('mine')\n" and "it stays, and is yours" in said
    assert (project / "strategies/mine.yaml").is_file()


def test_a_conflict_is_settled_by_the_user(project: Path, capsys: pytest.CaptureFixture) -> None:
    own = (project / BASE).read_text().replace("lr: 5.0e-3", "lr: 2.0e-4")
    (project / BASE).write_text(own)
    commit(project)
    main.main(["upgrade"])
    assert f"{BASE}: 1 conflict" in capsys.readouterr().out
    marked = (project / f"{BASE}.new").read_text()
    assert (project / BASE).read_text() == own
    assert all(part in marked for part in ("<<<<<<< yours", "lr: 2.0e-4", "lr: 1.0e-3", ">>>>>>> retemper"))
    commit(project)
    main.main(["upgrade"])  # not settled: said again
    assert f"{BASE}: 1 conflict" in capsys.readouterr().out
    (project / f"{BASE}.new").unlink()
    commit(project)
    main.main(["upgrade"])
    assert (project / BASE).read_text() == own and "nothing to do" in capsys.readouterr().out


def test_a_dry_run_shows_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture) -> None:
    main.main(["upgrade", "--dry-run"])
    said = capsys.readouterr().out
    assert "-  lr: 5.0e-3" in said and "+  lr: 1.0e-3" in said and f"+++ b/{NAIVE}" in said
    assert "nothing was written" in said and git(project, "status", "--porcelain") == ""


@pytest.mark.hostile("users")
def test_only_on_a_clean_tree(project: Path, capsys: pytest.CaptureFixture) -> None:
    (project / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(SystemExit):
        main.main(["upgrade"])
    assert "differ from the last commit" in capsys.readouterr().err
    assert (project / "dvc.yaml").read_text() == "stages: {}\n" and not (project / NAIVE).exists()


@pytest.mark.hostile("users")
def test_a_project_that_says_nothing_of_its_files(project: Path, capsys: pytest.CaptureFixture) -> None:
    git(project, "rm", "-q", str(FILE))
    with pytest.raises(SystemExit):
        main.main(["upgrade"])
    assert "in a clone of retemper's repository: git pull" in capsys.readouterr().err


def test_another_foundation_is_merged_as_a_whole(project: Path) -> None:
    """Weights are no text: an untouched file is renewed, a changed one stays beside the new."""
    root = template.template_root()
    base = Base.read(project / FILE)
    earlier = {"foundations/mini.model": b"\x80earlier", "foundations/pretraining/test.extxyz.xz": b"\xfdearlier"}
    for name, content in earlier.items():
        (project / name).write_bytes(content)
    files = base.files | {name: Given.of(content) for name, content in earlier.items()}
    base.model_copy(update={"files": files}).write(project / FILE)
    (project / "foundations/mini.model").write_bytes(b"\x80my own")
    commit(project)
    main.main(["upgrade"])
    assert (project / "foundations/mini.model").read_bytes() == b"\x80my own"
    for name, suffix in (("foundations/mini.model", ".new"), ("foundations/pretraining/test.extxyz.xz", "")):
        assert (project / f"{name}{suffix}").read_bytes() == (root / name).read_bytes()
