"""The campaigns against the platform: do they see what they look for? And the table of hostile cases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from counted import COLLECTED, HOSTILE

from benchmarks.hostile import cases, kills, project, state, users


def test_the_table_of_hostile_cases_claims_no_more_than_there_are(request: pytest.FixtureRequest) -> None:
    """A new case needs no new table; a case that goes does."""
    table = cases.written(cases.PAGE.read_text())
    assert list(table) == [*cases.KINDS, "all"]
    for cases_, held in table.values():
        assert held <= cases_
    kinds = [table[kind] for kind in cases.KINDS]
    assert table["all"] == (sum(c for c, _ in kinds), sum(h for _, h in kinds))
    if set((ROOT / "tests").rglob("test_*.py")) - request.config.stash[COLLECTED]:
        pytest.skip("the other tests were not collected")
    collected = request.config.stash[HOSTILE]
    assert all(collected.get(kind, 0) >= table[kind][0] for kind in cases.KINDS), "run `make docs`"


def test_cases_are_counted_and_judged(tmp_path: Path) -> None:
    """One that holds, one that fails, one that is skipped, one without the marker, in a suite of their own."""
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.hostile('data')\n@pytest.mark.parametrize('k', [1, 2])\ndef test_a(k): assert k == 1\n"
        "@pytest.mark.hostile('data')\ndef test_b(): pytest.skip()\n"
        "def test_c(): pass\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = hostile(kind): a case\n")
    command = [sys.executable, "-m", "benchmarks.hostile.cases", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"| data | {cases.KINDS['data']} | 3 | 1 | 1 |" in done.stdout and "| all | | 3 | 1 | 1 |" in done.stdout
    (tmp_path / "test_some.py").write_text("import pytest\n@pytest.mark.hostile('nonsense')\ndef test_a(): pass\n")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "the kinds are inputs, " in done.stdout + done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder that looks like a project to the reader of states."""
    root = tmp_path / "project"
    (root / "runs/evaluate").mkdir(parents=True)
    (root / "params.yaml").write_text("seeds: [1, 2]\n")
    (root / "promotions.jsonl").write_text(json.dumps({"time": "2026-01-01T00:00:00Z", "version": "1"}) + "\n")
    (root / "runs/evaluate/metrics.json").write_text(json.dumps({"force": 0.123456789, "seconds": 3.0, "n": [1, 2]}))
    (root / "runs/evaluate/frames.csv").write_text("frame,force\n0,1.5\n1,2.5\n")
    (root / "runs/model.model").write_bytes(b"no archive")
    return root


CHANGES = {
    "a number": ("runs/evaluate/metrics.json", '"force": 0.123456789', '"force": 0.1235'),
    "a cell": ("runs/evaluate/frames.csv", "1,2.5", "1,2.6"),
    "a row": ("runs/evaluate/frames.csv", "1,2.5\n", ""),
    "a setting": ("params.yaml", "[1, 2]", "[1, 3]"),
    "a move": ("promotions.jsonl", '"version": "1"', '"version": "2"'),
    "a byte": ("runs/model.model", "no", "On"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_planted_difference_is_seen(what: str, small: Path) -> None:
    before = state.read(small)
    path, old, new = CHANGES[what]
    (small / path).write_text((small / path).read_text().replace(old, new))
    assert state.differences(before, state.read(small), set(), kills.TOLERANCE)


def test_times_rounding_and_identifiers_are_no_difference(small: Path) -> None:
    before = state.read(small)
    for path, old, new in (
        ("runs/evaluate/metrics.json", "0.123456789", "0.123456788"),
        ("runs/evaluate/metrics.json", '"seconds": 3.0', '"seconds": 4.0'),
        ("promotions.jsonl", "2026-01-01", "2026-01-02"),
    ):
        (small / path).write_text((small / path).read_text().replace(old, new))
    after = state.read(small)
    assert not state.differences(before, after, set(), kills.TOLERANCE)
    assert len(state.differences(before, after, set())) == 1  # bit by bit the number is another one
    assert state.volatile([before, after]) >= {"promotions.jsonl line 0 time"}


def test_leftover_folders_are_seen(small: Path) -> None:
    before = state.read(small)
    (small / "runs/.4711.replay").mkdir()
    assert state.differences(before, state.read(small), set()) == [
        "too much: left behind runs/.N.replay = a temporary file or folder"
    ]


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("status", "update runs set status = 'RUNNING' where name like '% naive seed 1'"),
        ("alias", "update registered_model_aliases set version = 2 where alias = 'candidate'"),
        ("tag", "delete from model_version_tags where key = 'sha256' and version = 1"),
        ("metric", "update metrics set value = value + 1"),
        ("too much", "insert into registered_model_aliases values ('champion', 1, 'salt', 'default')"),
        ("missing", "delete from runs where name like '% naive seed 2'"),
    ],
)
def test_a_planted_difference_in_the_registry_is_seen(
    registered: Path, tmp_path: Path, what: str, statement: str
) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    store = f"file:{registered / 'mlflow.db'}?mode=ro"
    with sqlite3.connect(store, uri=True) as source, sqlite3.connect(root / "mlflow.db") as target:
        source.backup(target)
    before = state.read(root)
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute(statement).rowcount > 0
    found = state.differences(before, state.read(root), set())
    assert found and any(what in line for line in found)


def test_a_command_is_killed_with_its_group_or_alone(small: Path) -> None:
    """What it leaves is found by its mark and ended."""
    script = small / "work.py"
    script.write_text("import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n")
    for group in (True, False):
        ended = project.run(small, "python work.py", kill_after=2.0, group=group)
        assert ended.killed and ended.status == -signal.SIGKILL
        mine = [p for p in project.marked() if p.cmdline()[:1] == ["sleep"] and p.cwd() == str(small)]
        assert bool(mine) is not group
        assert len(project.end_all(ended.mark)) == len(mine)
    script.write_text("import subprocess\nsubprocess.Popen(['sleep', '60'])\n")
    before = project.PATIENCE
    project.PATIENCE = 1.0
    try:
        ended = project.run(small, "python work.py")
    finally:
        project.PATIENCE = before
    assert ended.status == 0 and ended.left == ["sleep 60"]


def test_lost_and_invented_moves_are_seen() -> None:
    """A history that lacks a move, has one of a refused command, has one twice, or ends elsewhere than the alias."""
    move = {"system": "nacl", "alias": "champion", "id": "x", "reason": "ada-1", "to": {"sha256": "a"}}
    record = [
        {
            "user": "ada",
            "command": "retemper promote nacl/1 --reason ada-1",
            "status": 0,
            "text": "is the champion now",
        },
        {"user": "ada", "command": "retemper promote nacl/2 --reason ada-2", "status": 1, "text": "error: no"},
    ]

    def faults(**histories: list[dict[str, Any]]) -> list[str]:
        return list(users.out_of_step({"champion": "a", "challenger": None}, histories, record))

    refused = {**move, "id": "y", "reason": "ada-2"}
    assert faults(ada=[move]) == faults(ada=[move], bob=[move]) == []
    for history in ([], [move, refused], [move, move], [{**move, "to": {"sha256": "b"}}]):
        assert faults(ada=history)
    assert any("differ" in fault for fault in faults(ada=[move], bob=[]))


@pytest.mark.slow
@pytest.mark.hostile("kills")
@pytest.mark.parametrize("stage", kills.STAGES)
def test_a_killed_stage_run_again_gives_what_it_gives_undisturbed(
    stage: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One kill of each stage; `python -m benchmarks.hostile.kills` for hundreds."""
    campaign = kills.Campaign(tmp_path_factory.getbasetemp() / "kills", ROOT, seed=os.getpid(), references=2)
    line = campaign.trial(stage, 0)
    assert line["ended"] and not line["differences"] and not line["tracebacks"] and not line["left"], kills.summary(
        line
    )


@pytest.mark.slow
@pytest.mark.hostile("users")
@pytest.mark.parametrize("apart", [False, True])
def test_two_users_side_by_side(apart: bool, tmp_path: Path) -> None:
    """Twenty commands; `python -m benchmarks.hostile.users` for hundreds."""
    users.campaign(tmp_path, ROOT, 20, seed=1, apart=apart)
    assert json.loads((tmp_path / "faults.json").read_text()) == []
    shutil.rmtree(tmp_path)
