"""Where a result comes from: git, DVC's lock file, packages."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from run_files import write_project

from retemper.core.errors import RetemperError
from retemper.records.origin import Commit
from retemper.tracking import lineage

LOCK = """schema: '2.0'
stages:
  dataset:
    cmd: python -m pipelines.dataset
    deps:
    - path: data/raw/nacl.extxyz
      hash: md5
      md5: 11111111111111111111111111111111
      size: 10
    outs:
    - path: runs/dataset
      hash: md5
      md5: 22222222222222222222222222222222.dir
      size: 10
      nfiles: 5
  replay:
    cmd: python -m pipelines.replay
    deps:
    - path: runs/dataset
      hash: md5
      md5: 33333333333333333333333333333333.dir
    outs:
    - path: runs/replay/train.extxyz
      hash: md5
      md5: 44444444444444444444444444444444
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_hashes_of_outputs_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    hashes = lineage.dvc_hashes(tmp_path)
    assert hashes == {
        "data/raw/nacl.extxyz": "1" * 32,
        "runs/dataset": "2" * 32,  # the output, not what another stage has seen of it earlier
        "runs/replay/train.extxyz": "4" * 32,
    }
    assert lineage.dvc_hash(hashes, "runs/dataset/train.extxyz") == ("runs/dataset", "2" * 32)
    assert lineage.dvc_hash(hashes, "runs/replay/train.extxyz") == ("runs/replay/train.extxyz", "4" * 32)
    assert lineage.dvc_hash(hashes, "runs/replay/valid.extxyz") is None


@pytest.mark.parametrize("md5", ["0b5c" * 8, "0" * 31 + "1", "12e" + "4" * 29, "7" * 32])
def test_a_hash_that_looks_like_a_number_is_a_hash(tmp_path: Path, md5: str) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK.replace("4" * 32, md5))
    assert lineage.dvc_hashes(tmp_path)["runs/replay/train.extxyz"] == md5


def test_without_a_lock_there_are_no_hashes_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert lineage.dvc_hashes(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("stages: [1, 2]\n")
    with pytest.raises(RetemperError, match="not a DVC lock file"):
        lineage.dvc_hashes(tmp_path)
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(RetemperError, match="dvc.lock"):
        lineage.dvc_hashes(tmp_path)


def test_file_hash_is_the_one_dvc_uses(tmp_path: Path) -> None:
    from dvc_data.hashfile.hash import file_md5
    from dvc_objects.fs.local import LocalFileSystem

    path = tmp_path / "data.extxyz"
    path.write_bytes(b"3\r\n\nH 0 0 0\n" * 1000)
    local: Any = LocalFileSystem
    assert lineage.file_md5(path) == file_md5(str(path), local(), name="md5")
    path.write_bytes(b"other")
    assert lineage.file_md5(path) == hashlib.md5(b"other").hexdigest()


def test_commit_and_changes(tmp_path: Path) -> None:
    assert lineage.git_commit(tmp_path) == Commit(commit=None, dirty=None)
    git(tmp_path, "init", "-q")
    assert lineage.git_commit(tmp_path) == Commit(commit=None, dirty=None)
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "dvc.lock").write_text(LOCK)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert lineage.git_commit(tmp_path) == Commit(commit=commit, dirty=False)
    (tmp_path / "dvc.lock").write_text("")  # DVC rewrites it while it runs
    (tmp_path / "new.txt").write_text("")
    assert lineage.git_commit(tmp_path) == Commit(commit=commit, dirty=False)
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert lineage.git_commit(tmp_path) == Commit(commit=commit, dirty=True)


def test_versions_are_those_installed() -> None:
    found = lineage.versions()
    assert found["mace-torch"] == version("mace-torch")
    assert found["retemper"] and found["python"]


@pytest.mark.parametrize(
    ("labels", "roles"),
    [
        (None, ["train", "valid", "test", "foundation"]),
        ("original", ["train", "valid", "test", "replay", "replay-valid", "foundation"]),
        ("foundation", ["train", "valid", "test", "pseudolabel", "pseudolabel-valid", "foundation"]),
    ],
)
def test_data_behind_a_model(tmp_path: Path, tiny_model: Path, labels: str | None, roles: list[str]) -> None:
    settings = write_project(tmp_path, tiny_model)
    files = lineage.training_data(tmp_path, settings, labels)
    assert [file.role for file in files] == roles
    assert files[-1].md5 == hashlib.md5(tiny_model.read_bytes()).hexdigest()
    retention = lineage.retention_data(tmp_path, settings)
    assert retention is not None and retention.path == "foundations/retention.extxyz"
