"""Results of studies of earlier versions: they are kept for good, and shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retemper.core import sealed
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, write_json
from retemper.records.result import Failure, Result
from retemper.study import result_files

RESULT: dict[str, Any] = {  # as version 0.1 wrote it
    "values": {"target.groups": 5.0, "target.force_rmse": 215.0, "target.force_rmse.low": 180.0},
    "foundation": {"target.groups": 5.0, "target.force_rmse": 446.0},
    "groups": {
        "model": {"cells": {"target_force_rmse": "174:180.83 192:188.63"}, "numbers": {"target": 2}},
        "foundation": {"cells": {"target_force_rmse": "174:431.47 192:443.83"}, "numbers": {"target": 2}},
    },
    "counts": {"rss": 48}, "unmeasured": {"cost": "no GPU"},
    "e0s": {"error": 4.0, "rank": 2, "elements": 4, "open": []},
    "structures": {"train": 8, "valid": 6, "test": 10, "isolated": 4, "unused": 16, "rejected": 0},
    "elements": ["Cl", "H", "Na", "O"],
    "training": {
        "key": "cccccccc66666666", "best_epoch": 1, "epochs": 2, "sha256": "874a", "trainable": 92472,
        "parameters": 92480,
    },
    "cost": {"work": [1.0, 504.0, 0.0, 0.0], "system": "few", "strategy": "naive", "foundation": "mini"},
    "versions": {"retemper": "0.1.0", "torch": "2.13.0+cpu"}, "code": {"dataset": "0123"}, "cpu_seconds": 12.6,
}  # fmt: skip


@pytest.mark.parametrize("with_checksum", [True, False])
def test_a_result_of_before_there_were_forms_is_read(with_checksum: bool, tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.json"
    if with_checksum:
        sealed.write_json(path, path.stem, RESULT)
    else:
        write_json(path, RESULT)
    result = result_files.load(path)
    assert isinstance(result, Result) and result.values["target.force_rmse"] == 215.0
    assert result.model_dump() == {"form": 1, **RESULT}
    result_files.keep(path, result)
    assert result_files.load(path) == result and read_json(path)["form"] == 1


def test_a_result_of_the_first_versions_is_read(tmp_path: Path) -> None:
    """It had neither errors by group nor the code behind it."""
    path = tmp_path / "0123456789abcdef.json"
    write_json(path, {name: value for name, value in RESULT.items() if name not in ("groups", "code")})
    result = result_files.load(path)
    assert isinstance(result, Result) and result.code == {} and result.groups.model.cells == {}


def test_a_failure_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.json"
    for content in (
        {"failed": "it broke", "cpu_seconds": 3.5},
        {"failed": "it broke", "cpu_seconds": 3.5, "died": True},
    ):
        write_json(path, content)
        assert result_files.load(path) == Failure(failed="it broke", cpu_seconds=3.5, died=content.get("died", False))


def test_what_is_no_result_is_said(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.json"
    write_json(path, {**RESULT, "e0s": {}})
    with pytest.raises(RetemperError, match="e0s.error: Field required"):
        result_files.load(path)
