"""Which code decides a stage, and what is remembered of unchanged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from retemper.core import sources
from retemper.core.files import atomic_folder, clear_leftovers
from retemper.core.hashes import Hashes
from retemper.prepare import inputs


def modules() -> set[str]:
    folder = ROOT / "platform/retemper"
    names = {".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")}
    return {f"retemper.{name.removesuffix('.__init__')}" for name in names} - {"retemper.__init__"}


# What the graph does not run: commands, studies, advice, rounds (beyond the joining of their labels), generators.
OUTSIDE = tuple(
    f"retemper.{name}"
    for name in (
        *("__main__", "active", "advise", "finetune.live", "finetune.mace.pretrain", "finetune.parallel"),
        *("finetune.stage", "models.last_layer", "evaluation.foundation_card", "registry.serve", "study", "systems"),
        *("data.label_keys", "projects", "records.result", "mlflow_model"),
    )
)


def test_every_module_belongs_to_a_stage() -> None:
    """A new module decides a stage's numbers, or is listed among those that carry them, or lies outside the graph."""
    from retemper.evaluation.robustness import metrics

    decide: set[str] = set()
    for name, stage in inputs.STAGES.items():
        roots = [f"retemper.{one}" for one in stage.code]
        roots += (
            [f"retemper.evaluation.robustness.metrics.{one}" for one in metrics.names()] if name == "robustness" else []
        )
        decide |= set(inputs.code(roots, stage.apart))
    assert decide | inputs.CARRIERS <= modules()
    assert not decide & inputs.CARRIERS
    left = {name for name in modules() - decide if not name.startswith((*OUTSIDE, *inputs.CARRIERS))}
    assert left == set()


@pytest.mark.hostile("inputs")
def test_kept_tasks_are_those_of_the_code_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mended inference computes anew what the robustness suite had kept."""
    from retemper.models.evaluators import Subject
    from retemper.simulation import engine, points
    from retemper.simulation import sources as suite

    task = engine.Task(points.single_points, Subject("emt", "ase", "ase.calculators.emt:EMT()", "emt"), {}, "one")
    assert "retemper.models.mace" in inputs.code(["retemper.models.evaluators"])
    before, statements = task.key, sources.statements
    suite.evaluators.cache_clear()
    monkeypatch.setattr(sources, "statements", lambda name: "" if name.endswith("models.mace") else statements(name))
    assert task.key != before
    suite.evaluators.cache_clear()


@pytest.mark.hostile("inputs")
def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    data, memory = tmp_path / "data.xyz", tmp_path / "memory.json"
    data.write_text("one")
    first = Hashes(memory)
    found = first.of(data)
    first.save()
    young = Hashes(memory)
    assert young.of(data) == found and young.computed == 1  # it may still change within a time stamp
    status = data.stat()
    state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    memory.write_text(json.dumps({str(data): [*state, found]}))
    old = Hashes(memory)
    assert old.of(data) == found and old.computed == 0
    memory.write_text("{ broken")
    assert Hashes(memory).of(data) == found


def test_a_hash_is_of_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "measured.py"

    def of(text: str) -> str:
        path.write_text(text)
        return sources.statements("measured")

    plain = of("def f(x):\n    return x + 1\n")
    words = (
        '"""Words."""\n\ndef f(x):  # a comment\n    """More."""\n    print("x is", x)\n    return (x\n        + 1)\n'
    )
    assert of(words) == plain
    assert of("def f(x):\n    return x + 2\n") != plain
    assert of("def f(x):\n    raise RetemperError('a')\n") == of("def f(x):\n    raise RetemperError('bc')\n")
    assert of("def f(x):\n    return RetemperError('a')\n") == of("def f(x):\n    return RetemperError(x, fix='b')\n")
    assert of("def f(x):\n    raise NotApplicableError('a')\n") != of("def f(x):\n    raise NotApplicableError('bc')\n")


@pytest.mark.hostile("kills")
def test_a_stage_clears_what_was_left_of_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of processes that are gone, within DVC alone: elsewhere the same number may be a process of another machine."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        pass
    dead, others = tmp_path / f".{ended.pid}.lora", [f".{os.getppid()}.lora", f".{ended.pid}.naive", ".x.lora"]
    for path in (dead, *(tmp_path / name for name in others)):
        path.mkdir()
        (path / "file").write_text("half")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for _ in range(2):
        with atomic_folder(tmp_path / "lora") as folder:
            (folder / "file").write_text("whole")
        assert dead.is_dir() != ("DVC_STAGE" in os.environ)
        monkeypatch.setenv("DVC_STAGE", "finetune@lora")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "lora"])


@pytest.mark.hostile("kills")
def test_what_killed_processes_left_goes_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".{dead.pid}.output", f".{os.getpid()}.output", ".hidden.output", "output"):
        (tmp_path / name).mkdir()
    (tmp_path / f".{dead.pid}.spent.json").write_text("{")
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".{os.getpid()}.output", ".hidden.output", "output"}
