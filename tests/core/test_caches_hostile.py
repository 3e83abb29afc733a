"""What is kept on disk is damaged, cut off, exchanged or planted: the same numbers as undisturbed, and a word."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import run_files
import torch
from ase import Atoms
from damaged_files import flip
from study_project import empty_project, runs, write_result
from trainings import make_plan

from retemper.advise import facts
from retemper.config.foundations import Foundation
from retemper.core import sealed
from retemper.core.files import sha256
from retemper.data.frames import ENERGY, write_frames
from retemper.finetune import collect, planning
from retemper.finetune.mace import checkpoint, lmdb_cache
from retemper.models import evaluators
from retemper.prepare import pseudolabel
from retemper.records.sweep import GroupErrors
from retemper.records.training import Outcome
from retemper.simulation import engine
from retemper.simulation.points import single_points
from retemper.study import run, table
from retemper.sweep import alike

# ------------------------------------------------------------------ faults


class Planted:
    """Leaves a mark where it is unpickled."""

    mark: Path

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def plant(path: Path) -> None:
    planted = Planted()
    planted.mark = path.with_name("mark")
    path.write_bytes(pickle.dumps(planted))


FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "a bit of the content": lambda path, other: flip(path, 0.7),
    "a bit of the head": lambda path, other: flip(path, 0.02),
    "the last bit": lambda path, other: flip(path, 0.985),
    "cut off": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, other: os.truncate(path, 0),
    "longer": lambda path, other: path.write_bytes(path.read_bytes() * 2),
    "another's": lambda path, other: shutil.copy(other, path),
    "a pickle that runs code": lambda path, other: plant(path),
    "not text": lambda path, other: path.write_bytes(bytes(range(256)) * 4),
    "JSON of another kind": lambda path, other: path.write_text("[1, 2]\n"),
    "a folder": lambda path, other: replaced(path, lambda one: (one / "in").mkdir(parents=True)),
    "a pipe": lambda path, other: replaced(path, os.mkfifo),
    "a link to itself": lambda path, other: replaced(path, lambda one: one.symlink_to(one)),
    "a link to another's": lambda path, other: replaced(path, lambda one: one.symlink_to(other)),
}
SILENT: dict[str, Callable[[Path, Path], object]] = {  # as if nothing had been kept
    "gone": lambda path, other: path.unlink(),
    "a link to nothing": lambda path, other: replaced(path, lambda one: one.symlink_to("nowhere")),
}


# ------------------------------------------------------------------ caches


@dataclass
class Kept:
    """A file that is kept, one of the same kind of something else, and how a person gets at its content."""

    path: Path
    other: Path
    get: Callable[[], Any]


EMT = evaluators.describe("ase:ase.calculators.emt:EMT()")


def tasks(folder: Path, request: pytest.FixtureRequest) -> Kept:
    def task(distance: float) -> engine.Task:
        frames = [Atoms("Cu2", [[0, 0, 0], [distance, 0, 0]]), Atoms("Cu")]
        return engine.Task(single_points, EMT, {"frames": frames}, "pair")

    def get() -> Any:
        (found,) = engine.run([task(2.2)], workers=1, cache=folder)
        return [found.energy.tolist(), [one.tolist() for one in found.forces], found.reasons]

    engine.run([task(2.2), task(2.5)], workers=1, cache=folder)
    return Kept(*(folder / f"tasks/{task(d).key}{engine.SUFFIX}" for d in (2.2, 2.5)), get)


def pseudolabels(folder: Path, request: pytest.FixtureRequest, name: str) -> Kept:
    model = request.getfixturevalue("tiny_model")
    sets = [[Atoms("OH2", [[0, 0, 0], [d, 0, 0], [0, d, 0]])] for d in (0.95, 1.05)]

    def get(frames: list[Atoms] = sets[0]) -> Any:
        made = pseudolabel.label(model, frames, name="tiny", cache=folder, progress=False)
        return [atoms.info[ENERGY] for atoms in made.frames]

    places = []
    for frames in sets:
        get(frames)
        places.append(folder / pseudolabel.address(model, "Default", frames, "float64") / name)
    return Kept(*places, get)


def training(folder: Path, request: pytest.FixtureRequest, name: str) -> Kept:
    """A finished training; where it is not sound, it is trained again (`test_training_...`)."""

    def leave(key: str) -> None:
        (folder / key).mkdir(parents=True, exist_ok=True)
        for one in collect.FILES:
            (folder / key / one).write_text(f"{one} of {key}, as its training left it\n" * 9)
        outcome = run_files.outcome(key=key, epochs=3, best_loss=0.1 + len(key)).model_dump(exclude={"ended"})
        collect.finish(folder / key, key, Outcome(**outcome))

    def get() -> Any:
        if collect.finished(folder / "one", "one") is None:
            leave("one")
        found = collect.finished(folder / "one", "one")
        return found, [(folder / "one" / file).read_text() for file in collect.FILES]

    for key in ("one", "another"):
        leave(key)
    return Kept(folder / "one" / name, folder / "another" / name, get)


def state(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """The last checkpoint; the one before is taken up, whose next epoch is the same one again."""
    for key in ("one", "another"):
        (folder / key).mkdir()
        for epoch in (1, 2):
            checkpoint.save(folder / key, key, {"epoch": epoch, "model": {"w": torch.arange(99.0) * epoch}})

    def get() -> Any:
        found = checkpoint.read(folder / "one", "one")
        assert found is not None
        content = checkpoint.resume(found, torch.device("cpu"))
        if content["epoch"] == 1:
            checkpoint.save(folder / "one", "one", {"epoch": 2, "model": {"w": content["model"]["w"] * 2}})
            return get()
        return content["epoch"], content["model"]["w"].tolist()

    return Kept(folder / "one" / checkpoint.LAST, folder / "another" / checkpoint.LAST, get)


def study_result(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """A result of a study; the run is made again, here by what makes results for tests."""
    root = empty_project(folder)
    every = runs(root)
    for number, one in enumerate(every):
        write_result(one, 50.0 + number)

    def get() -> Any:
        run.forget(every)
        if table.result(root, every[0].key) is None:
            write_result(every[0], 50.0)
        return table.result(root, every[0].key)

    return Kept(*(root / run.RESULTS / f"{one.key}.json" for one in every[:2]), get)


def stage(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """A file that a stage of a study wrote."""

    def make(name: str) -> None:
        (folder / name / "sets").mkdir(parents=True, exist_ok=True)
        (folder / name / "sets/train.extxyz").write_text(f"frames of {name}\n" * 9)
        sealed.seal_folder(folder / name, name, ["sets/train.extxyz"])

    def get() -> Any:
        if not (folder / "one").exists() or not sealed.check_folder(folder / "one", "one"):
            make("one")
        return (folder / "one/sets/train.extxyz").read_text()

    make("one")
    make("another")
    return Kept(*(folder / name / "sets/train.extxyz" for name in ("one", "another")), get)


def subset(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """The first structures of a replay set."""
    files = request.getfixturevalue("files")
    source = files["folder"] / "replay-train.extxyz"

    def get(number: int = 4) -> Any:
        return planning._first(source, number, folder).read_text()

    get()
    get(5)
    one, another = (planning._first(source, number, folder) for number in (4, 5))
    return Kept(one, another, get)


def on_disk(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """A training set that MACE reads from disk."""
    import lmdb

    plan = dataclasses.replace(make_plan(request.getfixturevalue("files"), "naive"), disk_above=0)

    def get() -> Any:
        path = lmdb_cache.flags(plan, folder)["train_file"]
        with lmdb.open(path, subdir=False, lock=False, readonly=True) as file, file.begin() as rows:
            return sorted((bytes(key), bytes(value)) for key, value in rows.cursor())

    get()
    found = lmdb_cache.flags(plan, folder)
    return Kept(Path(found["train_file"]), Path(found["valid_file"]), get)


def descriptors(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """Descriptors of a foundation's pool, by which data are said to be near to it."""
    model = request.getfixturevalue("tiny_model")
    frames = [Atoms("OH2", [[0, 0, 0], [0.9 + 0.01 * k, 0, 0], [0, 0.9 + 0.02 * k, 0]]) for k in range(12)]
    write_frames(folder / "pool.extxyz", frames[:6])
    write_frames(folder / "held.extxyz", frames[6:9])
    entry = Foundation(
        name="tiny", about="", level_of_theory="", licence="", citation="", file=str(model), sha256=sha256(model),
        head="Default", pool="pool.extxyz", retention="held.extxyz",
    )  # fmt: skip

    def get() -> Any:
        found = facts.distance(entry, frames[9:], folder)
        assert found is not None
        return dataclasses.astuple(found)

    get()
    one, another = sorted((folder / facts.CACHE).iterdir())
    return Kept(one, another, get)


def errors(folder: Path, request: pytest.FixtureRequest) -> Kept:
    """Errors by group beside a training; without them its trial is measured again."""

    def measure(name: str) -> None:
        alike.write(folder / name, {"target": GroupErrors(counts={"a": 3.0}, squares={"a": len(name) / 7})})

    def get() -> Any:
        if alike.read(folder / "one") is None:
            measure("one")
        return alike.read(folder / "one")

    measure("one")
    measure("another")
    return Kept(folder / "one" / alike.FILE, folder / "another" / alike.FILE, get)


CACHES: dict[str, Callable[[Path, pytest.FixtureRequest], Kept]] = {
    "a robustness task": tasks,
    "pseudolabels": lambda folder, request: pseudolabels(folder, request, "labels.extxyz"),
    "pseudolabels' manifest": lambda folder, request: pseudolabels(folder, request, "manifest.json"),
    "a training's model": lambda folder, request: training(folder, request, collect.FILES[0]),
    "a training's history": lambda folder, request: training(folder, request, "history.csv"),
    "a training's summary": lambda folder, request: training(folder, request, collect.SUMMARY),
    "a checkpoint": state,
    "a study's result": study_result,
    "a study's stage": stage,
    "a replay subset": subset,
    "a set on disk": on_disk,
    "descriptors": descriptors,
    "errors by group": errors,
}


@pytest.mark.hostile("caches")
@pytest.mark.parametrize("fault", [*FAULTS, *SILENT])
@pytest.mark.parametrize("cache", CACHES)
def test_a_kept_file(
    cache: str, fault: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    one = CACHES[cache](tmp_path, request)
    expected = one.get()
    before = one.other.read_bytes()
    capsys.readouterr()
    ({**FAULTS, **SILENT}[fault])(one.path, one.other)
    assert one.get() == expected
    said = capsys.readouterr().out
    assert ("put aside as" in said) or fault in SILENT, said
    assert not list(tmp_path.rglob("mark")) and one.other.read_bytes() == before
    assert one.get() == expected and "put aside" not in capsys.readouterr().out  # mended for good


# ------------------------------------------------------------------ trainings, really


@pytest.mark.hostile("caches")
def test_torch_refuses_code_when_asked_though_mace_allows_it(tmp_path: Path) -> None:
    """MACE switches torch's protection off for the whole process; asked for by name it holds."""
    from retemper.models import library

    library.import_mace()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    planted = Planted()
    planted.mark = tmp_path / "mark"
    torch.save({"weights": planted}, tmp_path / "file")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file", weights_only=True)
    assert not planted.mark.exists()
