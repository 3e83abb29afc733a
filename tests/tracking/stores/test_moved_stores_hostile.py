"""Stores of copied, moved, renamed and linked projects."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from sound_stores import content, start

import retemper
from retemper.cli import main
from retemper.core.errors import RetemperError
from retemper.tracking import embedded_store, runs
from retemper.tracking.store import connect


def places(root: Path) -> set[str]:
    """Folders that the store names in its four columns, up to ``mlartifacts``."""
    found = set()
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        for table, column in embedded_store.PLACES:
            for (place,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE 'file:%'"):
                found.add(re.sub(r"(.*/mlartifacts)(/.*)?", r"\1", place))
    return found


def works_at(root: Path) -> None:
    """What is written lands here, and what was there is read from here."""
    client: Any = connect(root)
    assert places(root) == {(root.resolve() / "mlartifacts").as_uri()}
    run_id = start(root, key=str(time.time()))
    assert run_id is not None
    (root / "new.txt").write_text("new")
    client.log_artifact(run_id, str(root / "new.txt"))
    assert (root / f"mlartifacts/{run_id}/artifacts/new.txt").is_file()
    version = client.get_model_version("salt", "1")
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        got = download_artifacts(artifact_uri=f"{logged.artifact_location}/tiny.model", dst_path=folder)
        assert Path(got).read_bytes() == (root / "foundations/tiny.model").read_bytes()


NAMES = ("copy", "a b", "50%20", "what?", "#1", "é", "it's", "mlartifacts", "project/mlartifacts/inside", "x" * 200)


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_beside_its_original(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The original is as it was, to the byte, and both work."""
    copy = project.with_name("copies") / name
    shutil.copytree(project, copy)
    before = content(project)
    works_at(copy)
    assert content(project) == before
    assert f"copied or moved here from {project}" in capsys.readouterr().err
    works_at(project)
    assert capsys.readouterr().err == ""  # it was always here


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("steps", [("b",), ("b", "c"), ("b", "project"), ("deep/er/b", "c")])
def test_a_moved_project(project: Path, steps: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved, moved again, and back: nothing is left where it was."""
    monkeypatch.chdir("/")
    for step in steps:
        to = project.parent / step
        to.parent.mkdir(parents=True, exist_ok=True)
        here = next(path.parent for path in project.parent.rglob("mlflow.db"))
        here.rename(to)
        works_at(to)
        assert not here.exists()


@pytest.mark.hostile("registry")
def test_a_parent_that_is_renamed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    parent = project.parent / "group"
    parent.mkdir()
    project.rename(parent / "project")
    works_at(parent / "project")
    parent.rename(project.parent / "team")
    works_at(project.parent / "team/project")
    assert not parent.exists()


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("link", ["root", "parent", "artifacts"])
def test_links(project: Path, link: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A project by another name is where it was; artifacts may lie on another disk."""
    root, other = project, project.with_name("other")
    if link == "root":
        other.symlink_to(project)
        root = other
    elif link == "parent":
        other.symlink_to(project.parent)
        root = other / "project"
    else:
        (project / "mlartifacts").rename(other)
        (project / "mlartifacts").symlink_to(other)
    works_at(root)
    works_at(project)
    assert capsys.readouterr().err == ""


@pytest.mark.hostile("registry")
def test_two_mounts_of_one_project(project: Path, tmp_path: Path) -> None:
    """One folder under two paths, as in a container or on two machines, in turn."""
    mount = tmp_path / "work"
    mount.mkdir()
    if subprocess.run(["mount", "--bind", str(project), str(mount)], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for root in (mount, project, mount):
            works_at(root)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.hostile("registry")
def test_moved_while_it_trains(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a training goes to where the project is by then."""
    run_id = start(project)
    assert run_id is not None
    runs.log_epoch(run_id, 0, {"train_loss": 1.0})
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    runs._live.clear()
    monkeypatch.chdir(copy)
    (copy / "seed").mkdir()
    (copy / "seed/history.csv").write_text("epoch,train_loss,seconds\n0,1.0,2.0\n1,0.5,2.0\n")
    before = content(project)
    runs.finish_training(run_id, copy / "seed", "FINISHED")
    assert content(project) == before
    assert (copy / f"mlartifacts/{run_id}/artifacts/history.csv").is_file()


@pytest.mark.hostile("registry")
def test_a_copy_killed_while_it_comes_home(project: Path) -> None:
    """All places or none: what a kill left open is done by the next command."""
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    here = (copy / "mlartifacts").as_uri()
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        embedded_store._replace(database, (project / "mlartifacts").as_uri(), here)
        # killed: no COMMIT
    assert places(copy) == {(project / "mlartifacts").as_uri()}
    works_at(copy)


@pytest.mark.hostile("registry")
def test_the_store_without_its_artifacts(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sync` does not say that all is well."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / "copy"
    shutil.copytree(registered, copy, ignore=shutil.ignore_patterns("mlartifacts"))
    monkeypatch.chdir(copy)
    with pytest.raises(SystemExit):
        main.main(["sync"])
    with pytest.raises(RetemperError, match="bring mlartifacts/"):
        retemper.load("salt/1", root=copy, device="cpu")


@pytest.mark.hostile("registry")
def test_the_commands_in_a_moved_project(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """models, show, load, sync and export of a copy, whose original is gone meanwhile."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, moved = tmp_path / "first", tmp_path / "moved"
    shutil.copytree(registered, first)
    connect(first)
    first.rename(moved)
    monkeypatch.chdir(moved)
    for command in (["models"], ["show", "salt/1"], ["sync"], ["export", "salt/1", "--to", "model", "--out", "out"]):
        main.main(command)
    assert "4 versions of salt are in MLflow" in capsys.readouterr().out
    retemper.load("salt/1", root=moved, device="cpu")
    assert not first.exists()
