"""A release is refused where version, changelog, citation and tag do not agree; else the wheel works alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from retemper.core.version import __version__


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what a release is made of, its changelog dated, in a git repository."""
    folder = tmp_path / "repository"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0"):
        if name and not name.startswith(("tests/", "docs/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    _replace(folder / "CHANGELOG.md", f"## {__version__} (unreleased)", f"## {__version__} (2026-12-24)")
    _git(folder, "init", "-q")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "Release")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _release(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ".ci/release.py"], cwd=folder, capture_output=True, text=True)


def test_the_wheel_is_built_and_works_alone(repository: Path) -> None:
    _git(repository, "tag", f"v{__version__}")
    done = _release(repository)
    assert done.returncode == 0, done.stderr
    wheel = repository / f"dist/retemper-{__version__}-py3-none-any.whl"
    assert 1e6 < wheel.stat().st_size < 20e6 and wheel.name in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("CHANGELOG.md", "(2026-12-24)", "(unreleased)", "no date"),
        ("CHANGELOG.md", f"## {__version__} (", "## 9.9.9 (", "expected ## " + __version__),
        ("CITATION.cff", f"version: {__version__}", "version: 0.0.0", "another version"),
        ("platform/retemper/core/version.py", __version__, "next", "1.2.3"),
    ],
)
def test_what_does_not_agree_is_refused(repository: Path, file: str, old: str, new: str, said: str) -> None:
    _replace(repository / file, old, new)
    done = _release(repository)
    assert done.returncode == 1 and said in done.stderr
    assert not (repository / "dist").exists()


def test_another_tag_is_refused(repository: Path) -> None:
    _git(repository, "tag", "v9.9.9")
    assert "expected v" + __version__ in _release(repository).stderr
