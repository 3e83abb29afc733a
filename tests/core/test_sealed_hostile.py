"""Sealed records: read as they were written, and no bit of them can turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retemper.core import sealed
from retemper.core.errors import RetemperError


@pytest.mark.parametrize(
    "content",
    [
        None, True, 0, -(2**63), 2**64 - 1, 1e-320, float("inf"), "Å", b"\0\xff", [], {}, (), (1, (2.0, "x")),
        {1: [None]}, {"a": (1, [2, {"b": ()}])},
    ],
    ids=repr,
)  # fmt: skip
def test_a_record_is_read_as_it_was_written(content: Any, tmp_path: Path) -> None:
    sealed.write(tmp_path / "x", "key", [content])
    (found,) = sealed.read(tmp_path / "x", "key")
    assert found == content and type(found) is type(content)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "u1", "?", "c16", "U7", "S3", ">f8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 2)])
def test_arrays_are_read_bit_by_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, size=shape)
    array = np.asarray(bits * 0.1 if "f" in dtype else bits).astype(dtype)
    array = array[::-1] if array.ndim else array  # not contiguous
    sealed.write(tmp_path / "x", "key", {"array": array, "transposed": array.T})
    found = sealed.read(tmp_path / "x", "key")
    for name, expected in (("array", array), ("transposed", array.T)):
        assert found[name].dtype == array.dtype and found[name].shape == expected.shape
        assert found[name].tobytes() == expected.tobytes() and found[name].flags.writeable


@pytest.mark.parametrize("number", [np.float64(0.1), np.float32(0.1), np.int32(3), np.bool_(True), np.float64("nan")])
def test_numbers_of_numpy_stay_so(number: Any, tmp_path: Path) -> None:
    sealed.write(tmp_path / "x", "key", [number])
    (found,) = sealed.read(tmp_path / "x", "key")
    assert type(found) is type(number) and found.tobytes() == number.tobytes()


@pytest.mark.parametrize("content", [object(), {1, 2}, np.array([object()]), 2**65, [lambda: 0]], ids=type)
def test_what_is_no_plain_data_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="cannot be kept"):
        sealed.write(tmp_path / "x", "key", content)
    assert not list(tmp_path.iterdir())


@pytest.mark.hostile("caches")
@pytest.mark.parametrize("kind", ["write", "write_json"])
def test_no_bit_of_a_record_can_turn(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every single bit: nothing is read from it, or what was written."""
    content = {"energy": -1.25, "forces": [0.1, 0.2], "state": "done"}
    path = tmp_path / "x"
    write, read = (sealed.write, sealed.read) if kind == "write" else (sealed.write_json, sealed.read_json)
    write(path, "key", content)
    data = path.read_bytes()
    refused = 0
    for bit in range(8 * len(data)):
        turned = bytearray(data)
        turned[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(turned))
        found = read(path, "key")
        assert found in (None, content)
        refused += found is None
        for aside in tmp_path.glob("*.corrupt*"):
            aside.unlink()
    assert refused > 0.9 * 8 * len(data)


@pytest.mark.hostile("caches")
def test_a_file_in_place_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("")
    assert sealed.read(tmp_path / "cache/tasks/x", "key") is None
    sealed.write(tmp_path / "cache/tasks/x", "key", [1])
    assert sealed.read(tmp_path / "cache/tasks/x", "key") == [1]
    assert "cache.corrupt" in capsys.readouterr().out


@pytest.mark.hostile("caches")
def test_the_record_of_another_user(tmp_path: Path) -> None:
    """Files that this user may not read or replace: said, not a traceback."""
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    tmp_path.chmod(0o755)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        sealed.write(folder / "x", "key", [1])
        (folder / "x").chmod(0o600)
        script = "import os, sys; from pathlib import Path; from retemper.core import sealed\n"
        script += "os.setuid(65534); sealed.read(Path(sys.argv[1]), 'key')"
        python = [sys.executable, "-c", script, str(folder / "x")]
        done = subprocess.run(python, capture_output=True, text=True, env=os.environ)
    finally:
        shutil.rmtree(folder)
    assert "RetemperError" in done.stderr and "cannot be put aside: Permission denied" in done.stderr, done.stderr
