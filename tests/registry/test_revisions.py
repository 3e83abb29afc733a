"""Which commits hold the data of registered versions."""

from __future__ import annotations

import subprocess
from pathlib import Path

from retemper.registry import data_revisions

A, B = "a" * 32, "b" * 32


def commit(root: Path, message: str) -> str:
    for arguments in (["add", "-A"], ["commit", "-qm", message]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_after_the_run_holds_its_data(tmp_path: Path) -> None:
    """A run starts from one commit, and its dvc.lock is in the next; the project is a folder of the repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    root = tmp_path / "project"
    root.mkdir()
    lock, wanted = (
        root / "dvc.lock",
        {"salt/1": frozenset({A}), "salt/2": frozenset({A, B}), "salt/3": frozenset({"c" * 32})},
    )
    lock.write_text("empty")
    commit(tmp_path, "before the run")
    assert data_revisions.newest_commits(root, wanted.values()) == {}
    lock.write_text(f"md5: {A}.dir")
    first = commit(tmp_path, "after the first run")
    lock.write_text(f"md5: {A}.dir\nmd5: {B}")
    second = commit(tmp_path, "after the second")
    lock.write_text("other")
    commit(tmp_path, "later")
    assert data_revisions.newest_commits(root, wanted.values()) == {wanted["salt/1"]: second, wanted["salt/2"]: second}
    subprocess.run(["git", "-C", str(root), "checkout", "-q", "--detach", first], check=True)  # other branches count
    text = "\n".join(data_revisions.spare(root, wanted))
    assert f"git tag -f retemper/{second[:10]} {second[:10]} && dvc gc --workspace --all-tags" in text
    assert "no commit here has the data of salt/3 in its dvc.lock" in text


def test_outside_git_no_commit_holds_anything(tmp_path: Path) -> None:
    assert data_revisions.newest_commits(tmp_path, [frozenset({A})]) == {}
    assert data_revisions.data_hashes({"dvc.runs/dataset": A, "sha256": B}) == {A}
    assert data_revisions.spare(tmp_path, {"salt/1": frozenset()}) == []
