"""What decides each stage's numbers, as DVC sees it: every file, setting and module that does, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from retemper.config import foundation_lock
from retemper.config.project import Project
from retemper.config.settings import Settings, parse
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.prepare import inputs
from retemper.records.inputs import StageInputs

ENTRY = {"about": "a", "level_of_theory": "PBE", "licence": "MIT", "citation": "c", "file": "mini.model"}
MACE = {name for name, stage in inputs.STAGES.items() if stage.mace}
EVERY = set(inputs.STAGES)
SHOWN = {"register", "promote", "report"}  # where the foundation's prose stands
PARAMS: dict[str, Any] = {  # no optional section but those that name files
    "system": "salt",
    "foundation": "mini",
    "strategies": ["naive"],
    "seeds": [1],
    "dataset": {"files": ["../outside/salt.xyz"], "test_files": ["held.xyz"], "level_of_theory": "PBE"},
    "replay": {"pools": ["../outside/pool.xyz"]},
    "evaluate": {"retention": "retention.xyz"},
    "robustness": {
        "metrics": ["rss"],
        "reference": "../outside/md.xyz",
        "figures": "../outside/figures",
        "oracle": "ase:ase.calculators.emt:EMT(parameters='emt.txt')",
    },
}
NAMED = ("../outside/salt.xyz", "held.xyz", "../outside/pool.xyz", "retention.xyz", "../outside/md.xyz", "mini.model")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose settings name files in and outside of it; their content is of no matter here."""
    root = tmp_path / "project"
    (root / "foundations").mkdir(parents=True)
    (tmp_path / "outside/figures").mkdir(parents=True)
    for name in (*NAMED, "emt.txt", "../outside/figures/s66.extxyz"):
        (root / name).write_text(f"content of {name}\n" * 3)
    catalogue(root)
    params(root)
    return root


def catalogue(root: Path, **more: Any) -> None:
    entries = {"mini": {**ENTRY, **more}, "other": ENTRY}
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump(entries))


def params(root: Path, **more: dict[str, Any]) -> None:
    content = {**PARAMS, **{name: {**PARAMS.get(name, {}), **part} for name, part in more.items()}}
    (root / "params.yaml").write_text(yaml.safe_dump(content))


def read(root: Path) -> Project:
    return Project(root, parse(Settings, yaml.safe_load((root / "params.yaml").read_text()), "params.yaml"))


def write(root: Path) -> dict[str, str]:
    """Stage -> text of its file, after writing."""
    inputs.run(read(root))
    return {path.stem: path.read_text() for path in sorted((root / "runs/inputs").iterdir())}


def swap(name: str) -> Callable[[Path], None]:
    """Other content of equal length, and the modification time put back."""

    def change(root: Path) -> None:
        status = (root / name).stat()
        (root / name).write_text((root / name).read_text().replace("content", "another"))
        os.utime(root / name, ns=(status.st_atime_ns, status.st_mtime_ns))

    return change


def accept(name: str) -> Callable[[Path], None]:
    """As `swap`, and what was remembered of the file is taken out of the lock."""

    def change(root: Path) -> None:
        swap(name)(root)
        (root / foundation_lock.LOCK).unlink()

    return change


def touch(root: Path) -> None:
    for name in NAMED:
        os.utime(root / name)


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "data outside of the project": (swap("../outside/salt.xyz"), {"dataset"}),
    "a test file": (swap("held.xyz"), {"dataset"}),
    "the pool halved": (lambda root: (root / "../outside/pool.xyz").write_text("half"), {"replay"}),
    "the retention set": (swap("retention.xyz"), {"replay", "evaluate", "robustness"}),
    "the reference trajectory": (swap("../outside/md.xyz"), {"robustness"}),
    "a reference figure": (swap("../outside/figures/s66.extxyz"), {"robustness"}),
    "another figure": (lambda root: (root / "../outside/figures/path.extxyz").write_text("x"), {"robustness"}),
    "a file of the oracle": (swap("emt.txt"), {"robustness"}),
    "weights that are taken for what they are now": (accept("mini.model"), MACE),
    "another head of the foundation": (lambda root: catalogue(root, head="omat"), EVERY),
    "a head in the settings": (lambda root: (root / "params.yaml").open("a").write("head: omat\n"), EVERY),
    "a default said": (lambda root: params(root, e0s={"method": "reestimate"}), set()),
    "a key that was left out": (lambda root: params(root, e0s={"method": "average"}), {"e0s"}),
    "another device": (lambda root: params(root, finetune={"device": "cuda", "workers": 2}), set()),
    "heads that are kept alive": (
        lambda root: params(root, replay={"heads": ["omat"]}),
        {"pseudolabel", "sweep", "finetune"},
    ),
    "epochs": (lambda root: params(root, finetune={"epochs": 3}), {"sweep", "finetune"}),
    "the scope": (lambda root: params(root, sweep={"scope": "broad"}), {"sweep", "finetune"}),
    "words about the foundation": (lambda root: catalogue(root, about="other words"), SHOWN),
    "files touched": (touch, set()),
    "a file that nobody names": (lambda root: (root / "../outside/other.xyz").write_text("x"), set()),
}


@pytest.mark.hostile("inputs")
@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_a_stage(project: Path, what: str) -> None:
    change, stages = CHANGES[what]
    before = write(project)
    assert write(project) == before
    change(project)
    now = write(project)
    assert {name for name in before if now[name] != before[name]} == stages


@pytest.mark.hostile("inputs")
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("../outside/salt.xyz", "dataset.files"),
        ("held.xyz", "dataset.test_files"),
        ("../outside/pool.xyz", "replay.pools"),
        ("retention.xyz", "evaluate.retention"),
        ("../outside/md.xyz", "robustness.reference"),
        ("mini.model", "file of foundation mini"),
    ],
)
def test_a_missing_file_is_an_error_that_names_the_setting(project: Path, name: str, setting: str) -> None:
    (project / name).unlink()
    with pytest.raises(RetemperError, match=rf"{setting} names {name}, which is not there"):
        write(project)


def test_what_changed_is_said(project: Path) -> None:
    write(project)
    swap("../outside/pool.xyz")(project)
    params(project, replay={"number": 7})
    assert inputs.run(read(project)) == ["replay: replay.number, replay.pools: ../outside/pool.xyz"]


@pytest.mark.hostile("inputs")
def test_downloaded_weights_count_by_their_hash(project: Path, tmp_path: Path) -> None:
    """Where they lie, and whether they are there yet, is of no matter: a clone needs none of them to skip."""
    entry = {key: value for key, value in ENTRY.items() if key != "file"} | {"url": "https://example.org/x.model"}

    def write_with(root: Path, **more: str) -> dict[str, str]:
        (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"mini": {**entry, **more}}))
        return write(root)

    first = write_with(project, sha256="a" * 64)
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns(".cache", "runs"))
    assert write(clone) == first
    now = write_with(project, sha256="b" * 64)
    assert {name for name, text in now.items() if text != first[name]} == MACE
    lock(project, "a" * 64)
    assert write_with(project) == first
    lock(project, "b" * 64)
    assert write_with(project) == now


def lock(root: Path, sha256: str) -> None:
    content = {"source": "https://example.org/x.model", "sha256": sha256, "size": 1}
    (root / foundation_lock.LOCK).write_text(yaml.safe_dump({"foundations": {"mini": content}}))


@pytest.mark.hostile("inputs")
def test_weights_that_changed_stop_before_a_stage_runs(project: Path) -> None:
    """What they were at first use is remembered in a file of the project; the message has both hashes."""
    before = sha256(project / "mini.model")
    first = write(project)
    swap("mini.model")(project)
    with pytest.raises(RetemperError) as raised:
        write(project)
    assert before in str(raised.value.expected) and sha256(project / "mini.model") in str(raised.value.got)
    assert {path.stem: path.read_text() for path in (project / "runs/inputs").iterdir()} == first


# ------------------------------------------------------------------ the package's own code


HEAD = "import annotations\n"
EDITS = {  # file: what is replaced, by what, stages that run again
    "prepare/e0_fit.py": (HEAD, f"{HEAD}LIMIT = 1\n", {"e0s"}),
    "finetune/mace/loss.py": (HEAD, f"{HEAD}LIMIT = 1\n", {"sweep", "finetune"}),
    "evaluation/robustness/metrics/rss.py": (HEAD, f"{HEAD}LIMIT = 1\n", {"robustness"}),
    "evaluation/robustness/metrics/rdf.py": (HEAD, f"{HEAD}LIMIT = 1\n", set()),  # not asked for
    "models/mace.py": (HEAD, f"{HEAD}LIMIT = 1\n", EVERY - {"register", "report"}),
    "report/page.py": (HEAD, f"{HEAD}LIMIT = 1\n", {"report"}),
    "core/errors.py": (HEAD, f"{HEAD}LIMIT = 1\n", set()),
    "prepare/e0_methods.py": ("raise RetemperError(", "raise RetemperError(  # a comment\n'Alas. ' +", set()),
    "prepare/dataset.py": ('"""', '"""Other words. ', set()),
    "prepare/replay.py": ("        log.info(", "        log.info('words: ' + ", set()),
}

CODE = """
import json, sys, pathlib, retemper
from retemper.prepare import inputs
from retemper.config import foundation_lock
from retemper.config.project import Project

package = pathlib.Path(retemper.__file__).parent
root = pathlib.Path.cwd()
project = Project.here(root)
changed = {}
for name, (old, new) in json.loads(sys.argv[1]).items():
    path = package / name
    text = path.read_text()
    assert old in text, name
    inputs.run(project)
    path.write_text(text.replace(old, new, 1))
    changed[name] = [line.partition(":")[0] for line in inputs.run(project)]
    path.write_text(text)
print(json.dumps(changed))
"""


@pytest.mark.hostile("inputs")
def test_mended_code_runs_its_stages_again(project: Path, tmp_path: Path) -> None:
    """In a copy of the package: a changed line reaches the stages whose numbers it decides; words reach none."""
    shutil.copytree(ROOT / "platform/retemper", tmp_path / "copy/retemper")
    edits = {name: edit[:2] for name, edit in EDITS.items()}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(edits)],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "copy")},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: set(stages) for name, stages in found.items()} == {name: edit[2] for name, edit in EDITS.items()}


# ------------------------------------------------------------------ the graph


def test_every_stage_depends_on_its_own_inputs() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages["inputs"]["always_changed"]
    for name, stage in stages.items():
        if name == "inputs":
            continue
        module = stage["cmd"].split()[2].removeprefix("pipelines.")
        assert [path for path in stage["deps"] if "runs/inputs" in path] == [f"runs/inputs/{module}.json"], name
        files = [path for entry in stage.get("params", []) for path in entry]
        assert all(path.startswith("strategies/") for path in files), name  # DVC would want every key in params.yaml


def dvc(root: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(ROOT / "platform"), str(root)])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": path, "RETEMPER_ROOT": str(root)}
        | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repository(root: Path) -> None:
    for command in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@b"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    dvc(root, "init", "-q")
    shutil.copy(ROOT / ".gitignore", root / ".gitignore")


def commit(root: Path) -> None:
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(root), "commit", "-qm", "x"], check=True)


@pytest.mark.hostile("inputs")
def test_the_graph_sees_files_outside_and_absent_keys(project: Path) -> None:
    """`dvc repro` of a later stage brings the inputs along; equal content is skipped, another file runs again."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    used = {
        "cmd": "wc -c < ../outside/pool.xyz > runs/seen",
        "deps": ["runs/inputs/replay.json"],
        "outs": ["runs/seen"],
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"inputs": stages["inputs"], "used": used}}))
    (project / "pipelines").mkdir()
    shutil.copy(ROOT / "pipelines/inputs.py", project / "pipelines")
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/note.txt").write_text("x")
    repository(project)
    assert "Running stage 'used'" in dvc(project, "repro", "used")
    touch(project)
    assert "Stage 'used' didn't change, skipping" in dvc(project, "repro", "used")
    (project / "../outside/pool.xyz").write_text("half")
    text = dvc(project, "repro", "used")
    assert "changed for replay: replay.pools: ../outside/pool.xyz" in text and "Running stage 'used'" in text
    assert (project / "runs/seen").read_text().split() == ["4"]


@pytest.mark.hostile("inputs")
def test_metrics_have_old_values(project: Path) -> None:
    metrics = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["metrics"]
    stage = {
        "cmd": "mkdir -p runs/report && cp new.json runs/report/metrics.json",
        "deps": ["new.json"],
        "metrics": metrics,
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": stage}}))
    repository(project)
    for value in (30.5, 20.5):
        (project / "new.json").write_text(json.dumps({"naive.target.force_rmse": value}))
        dvc(project, "repro")
        if value == 30.5:
            commit(project)
    (found,) = json.loads(dvc(project, "metrics", "diff", "--json")).values()
    assert found["naive.target.force_rmse"]["old"] == 30.5 and found["naive.target.force_rmse"]["new"] == 20.5


def test_what_is_written_is_short_and_readable(project: Path) -> None:
    write(project)
    content = StageInputs.read(read(project).inputs("replay"))
    assert list(content.files) == ["replay.pools: ../outside/pool.xyz", "evaluate.retention: retention.xyz"]
    assert content.settings["replay.number"] == 200 and content.settings["foundation"] == "mini"
    assert all(read(project).inputs(name).stat().st_size < 10_000 for name in inputs.STAGES)


# ------------------------------------------------------------------ what killed processes leave


@pytest.mark.hostile("kills")
def test_leftovers_change_no_stage(project: Path) -> None:
    """Half a round, half a model and half a file beside the finished ones: DVC and git pass them over."""
    stages = {
        "last": {
            "cmd": "find data/rounds runs/finetune -type f | sort > seen.txt",
            "deps": ["data/rounds", "runs/finetune"],
            "outs": ["seen.txt"],
        }
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    repository(project)
    shutil.copy(ROOT / ".dvcignore", project / ".dvcignore")
    for name in ("data/rounds/001", "runs/finetune/lora/seed-1"):
        (project / name).mkdir(parents=True)
        (project / name / "file").write_text("whole")
    dvc(project, "repro")
    commit(project)
    for name in ("data/rounds/.4711.002", "runs/finetune/.4712.lora/seed-1", "runs/finetune/lora/.4713.seed-1"):
        (project / name).mkdir(parents=True)
        (project / name / "file").write_text("half")
    (project / "data/rounds/001/.4714.round.json").write_text("half")
    assert "Stage 'last' didn't change, skipping" in dvc(project, "repro")
    done = subprocess.run(["git", "-C", str(project), "status", "--porcelain"], capture_output=True, text=True)
    assert done.stdout == ""
