"""Scratch folders are the user's own, or refused."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainings import make_plan

from retemper.core import scratch
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.sweep import file_transfer

PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda path: path.symlink_to(path.parent), "a link"),
    "a link to nothing": (lambda path: path.symlink_to(path.parent / "nowhere"), "a link"),
    "a file": (lambda path: path.write_text(""), "a file"),
    "a folder for all": (lambda path: (path.mkdir(), path.chmod(0o777)), "mode 777"),
    "a folder for the group": (lambda path: (path.mkdir(), path.chmod(0o770)), "mode 770"),
    "a sticky folder": (lambda path: (path.mkdir(), path.chmod(0o1777)), "mode 1777"),
    "another user's": (lambda path: (path.mkdir(mode=0o700), os.chown(path, 12345, 12345)), "a folder of user 12345"),
}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_folder_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone else was first in the shared temporary folder."""
    plant, got = PLANTED[case]
    if case == "another user's" and os.geteuid() != 0:
        pytest.skip("needs another user")
    monkeypatch.delenv("RETEMPER_SCRATCH", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plant(tmp_path / f"retemper-{os.getuid()}")
    with pytest.raises(RetemperError, match="is not this user's own") as raised:
        scratch.folder()
    assert got in str(raised.value) and "RETEMPER_SCRATCH" in str(raised.value)


def test_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made closed, and closed where others could only look into it."""
    own = tmp_path / "own"
    monkeypatch.setenv("RETEMPER_SCRATCH", str(own))
    for _ in range(2):
        assert scratch.folder() == own and stat.S_IMODE(own.stat().st_mode) == 0o700
        own.chmod(0o755)


def test_the_folder_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a closed folder, and short enough for the names of sockets."""
    for place in (tmp_path / ("long" * 20), Path("/tmp") / f"rt-{os.getpid()}"):
        monkeypatch.setenv("RETEMPER_SCRATCH", str(place))
        found = scratch.ray_folder()
        assert len(str(found)) <= scratch.LONGEST
        assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    place.rmdir()


class Near:
    """`file_transfer.Home` in this process, called as an actor is."""

    def __init__(self, method: str):
        self.remote = getattr(file_transfer.Home(), method)


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("case", ["changed", "a link"])
def test_a_planted_copy_of_a_file_is_fetched_again(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    monkeypatch.setenv("RETEMPER_SCRATCH", str(tmp_path / "own"))
    monkeypatch.setattr(ray, "get", lambda value: value)
    source = tmp_path / "train.extxyz"
    source.write_text("frames")
    home = type("Far", (), {"read": Near("read"), "sha256": Near("sha256")})()
    local = Path(file_transfer.fetch(str(source), home))
    local.unlink()
    (tmp_path / "other").write_text("other frames")
    local.write_text("other frames") if case == "changed" else local.symlink_to(tmp_path / "other")
    assert file_transfer.fetch(str(source), home) == str(local) and sha256(local) == sha256(source)
    assert "put aside" in capsys.readouterr().out and (tmp_path / "other").read_text() == "other frames"


def test_every_file_of_a_plan_is_fetched(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of heads that are kept alive, too: the node does not see the project's folder."""
    import ray

    monkeypatch.setenv("RETEMPER_SCRATCH", str(tmp_path / "own"))
    monkeypatch.setattr(ray, "get", lambda value: value)
    home = type("Far", (), {"read": Near("read"), "sha256": Near("sha256")})()
    plan = make_plan(files, "pseudolabel-replay")
    plan = dataclasses.replace(plan, kept={"omol": plan.replay})
    here = file_transfer.relocate(plan, home)
    for far, near in zip(plan.heads.values(), here.heads.values(), strict=True):
        for there, copy in ((far.train, near.train), (far.valid, near.valid)):
            assert copy.startswith(str(tmp_path / "own")) and sha256(copy) == sha256(there)
    assert here.key == plan.key and list(here.kept) == ["omol"]
