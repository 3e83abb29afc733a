"""Settings, files and foundations: bad input gives a message that says what to do, and writes nothing half."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from retemper.config import foundation_files, foundations
from retemper.config.settings import Settings, load_settings
from retemper.core import files
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames


def params(folder: Path, **changes: object) -> Path:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for path, value in changes.items():
        *sections, leaf = path.split("__")
        target = content
        for section in sections:
            target = target[section]
        target[leaf] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune__epoch": 3}, "did you mean 'epochs'"),
        ({"datasets": {}}, "did you mean 'dataset'"),
        ({"dataset__keys__energie": "E"}, "did you mean 'energy'"),
        ({"e0s__method": "averaged"}, "average"),
        ({"dataset__valid": 1.5}, "less than 1"),
        ({"seeds": []}, "at least 1"),
        ({"system": "my system"}, "pattern"),
        ({"replay__pool": "generated"}, r"replay\.pools: \[FILE\]"),
        ({"replay__pools": []}, "at least 1"),
        ({"replay__pools": ["a.xyz", "./a.xyz"]}, "twice"),
        ({"replay__pools": [{"pool": "a.xyz", "share": 0.6}, {"pool": "b.xyz", "share": 0.6}]}, "sum to 1.2"),
        ({"replay__pools": [{"pool": "a.xyz", "share": 0.6}]}, "sum to 0.6"),
        ({"replay__pools": [{"pool": "a.xyz", "share": 1.0}, "default"]}, "sum to 1"),
        ({"replay__pools": [{"pool": "default", "keys": {"energy": "E"}}]}, "keys of files"),
        ({"replay__pools": [{"pool": "a.xyz", "part": 0.5}]}, "part"),
    ],
)
def test_wrong_settings(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RetemperError, match=message):
        load_settings(params(tmp_path, **changes))


def test_missing_and_broken_params(tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="does not exist"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("system: [")
    with pytest.raises(RetemperError, match="not YAML"):
        load_settings(tmp_path / "params.yaml")
    with pytest.raises(RetemperError, match=r"no params\.yaml"):
        files.project_root(Path("/"))


def test_foundation_with_another_sha256_is_not_opened(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "foundations", tmp_path / "foundations", ignore=shutil.ignore_patterns("pretraining"))
    entry = foundations.find("mini", tmp_path)
    (tmp_path / str(entry.file)).write_bytes(b"not the model")
    with pytest.raises(RetemperError, match="It was not opened"):
        foundation_files.weights(entry, tmp_path)
    (tmp_path / str(entry.file)).unlink()
    with pytest.raises(RetemperError, match="does not exist"):
        foundation_files.weights(entry, tmp_path)
    with pytest.raises(RetemperError, match="did you mean 'mini'"):
        foundations.find("mimi", tmp_path)


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": 1}
    with pytest.raises(RetemperError, match="No space left"), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert files.read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_too_little_disk_space(tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="Too little disk space"):
        files.require_space(tmp_path / "not/there/yet", 10**18)


def test_truncated_structures_are_refused(tmp_path: Path) -> None:
    """ASE drops a broken last frame without a word."""
    text = "\n".join(["2", 'Properties=species:S:1:pos:R:3 pbc="F F F"', "H 0 0 0", "H 0 0 0.74"])
    (tmp_path / "whole.xyz").write_text(f"{text}\n{text}\n")
    assert len(read_frames(tmp_path / "whole.xyz")) == 2
    (tmp_path / "cut.extxyz").write_text(f"{text}\n" + "\n".join(text.splitlines()[:3]) + "\n")
    with pytest.raises(RetemperError, match="truncated|cannot be read"):
        read_frames(tmp_path / "cut.extxyz")
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(RetemperError, match="is empty"):
        read_frames(tmp_path / "empty.extxyz")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["-m", "pipelines.finetune", "lorra"], "did you mean 'lora'"),
        (["-m", "pipelines.finetune"], "usage: python -m"),
        (["-m", "retemper", "strategies"], ""),
    ],
)
def test_commands_exit_with_a_message(command: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) == (message == "")
    assert message in done.stderr and "Traceback" not in done.stderr
    if not message:
        assert all(name in done.stdout for name in ("naive", "replay-lora"))


def test_settings_that_were_written_out_are_read_again() -> None:
    """Resolved settings, saved beside outputs and varied by studies, with every default in them."""
    settings = load_settings(ROOT / "params.yaml")
    assert Settings.model_validate(settings.model_dump()) == settings
