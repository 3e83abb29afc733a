"""What faults leave behind: two at once, kills, stores changed or rebuilt, no server, full disks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from promoted import GATES, fill, judge, set_gates, small_disk, standing

import retemper
from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core.errors import RetemperError
from retemper.promotion import promote
from retemper.registry import aliases, attachments, history, register
from retemper.registry.client import Registry
from retemper.tracking.store import connect


def _move(root: str, version: str, expected: Any, die: str | None) -> None:
    """In another process: move the champion; `die` names the function of the store at which the process is killed."""
    os.chdir(root)
    if die:
        client = type(connect(Path(root)))
        setattr(client, die, lambda *_, **__: os._exit(9))
    try:
        aliases.move(Path(root), "salt", "champion", version, "override", f"to {version}", expected=expected)
    except RetemperError as error:
        print(error)
        sys.exit(3)


def _processes(root: Path, *arguments: tuple[str, Any, str | None]) -> list[int | None]:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_move, args=(str(root), *each)) for each in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


def test_two_promotions_at_once(project: Path) -> None:
    """Both judged against no champion: one moves the alias, the other is told that it has changed."""
    assert sorted(_processes(project, ("1", None, None), ("3", None, None))) == [0, 3]  # type: ignore[type-var]
    moves = history.read(project, "salt")
    assert len(moves) == 1 and moves[0].version == standing(project)["champion"]
    assert _processes(project, ("2", "anyone", None), ("4", "anyone", None)) == [0, 0]
    moves = history.read(project, "salt")
    assert len(moves) == 3 and moves[-1].version == standing(project)["champion"]
    held = history.stack(moves, "champion")
    assert len(held) == 3 and len({model.seed for model in held if model}) == 3


@pytest.mark.parametrize("die", ["set_registered_model_alias", "set_model_version_tag"])
def test_killed_in_the_middle_of_a_move(project: Path, die: str) -> None:
    """After the first tag the move has happened: the next command finishes it."""
    aliases.move(project, "salt", "champion", "1", "override", "first")
    assert _processes(project, ("3", "anyone", die)) == [9]
    assert len(history.read(project)) == 1  # the file does not know yet
    moves, held = aliases.current(project, "salt")
    assert held["champion"] is not None and held["champion"].version == "3" and standing(project)["champion"] == "3"
    assert [move.reason for move in history.read(project)] == ["first", "to 3"] == [move.reason for move in moves]


def test_killed_before_a_move_happened(project: Path) -> None:
    aliases.move(project, "salt", "champion", "1", "override", "first")
    assert _processes(project, ("3", "anyone", "set_registered_model_tag")) == [9]
    assert aliases.current(project, "salt")[1]["champion"] == aliases.Standing(history.read(project)[0].to, "1")  # type: ignore[arg-type]
    assert len(history.read(project)) == 1


def test_killed_between_registration_and_alias(project: Path) -> None:
    """Registered, judged, and gone before any alias: the same command again moves them."""
    settings = set_gates(project, GATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aliases, "move", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            judge(project, settings)
    assert standing(project) == {"champion": None, "challenger": None}
    judge(project, settings)
    assert standing(project) == {"champion": "1", "challenger": "3"}
    assert len(connect(project).search_model_versions("name = 'salt'")) == 4


def test_moved_by_hand_in_mlflow(project: Path) -> None:
    aliases.move(project, "salt", "champion", "1", "override", "first")
    connect(project).set_registered_model_alias("salt", "champion", "4")
    moves, held = aliases.current(project, "salt")
    assert held["champion"] is not None and held["champion"].version == "4"
    assert [(move.how, move.version) for move in moves] == [("override", "1"), ("outside", "4")]
    assert aliases.rollback(project, "salt", "not that one").version == "1"


def test_store_rebuilt_from_files_has_its_champion(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkout with the files and an empty store: `retemper sync`, on the versions' new numbers."""
    settings = set_gates(project, GATES)
    judge(project, settings)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("runs", "foundations"):
        shutil.copytree(project / name, other / name)
    for name in ("params.yaml", "promotions.jsonl"):
        shutil.copy(project / name, other / name)
    params = yaml.safe_load((other / "params.yaml").read_text())
    params["strategies"] = ["replay", "naive"]  # other numbers this time
    (other / "params.yaml").write_text(yaml.safe_dump(params))
    files = {path: path.read_bytes() for path in (other / "runs").rglob("*") if path.is_file()}
    monkeypatch.chdir(other)
    for _ in range(2):  # the second time changes nothing
        main.main(["sync"])
        assert "5 runs of 3 strategies, 0 trials of sweeps and 4 versions of salt" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (other / "runs").rglob("*") if path.is_file()} == files
    tags = [connect(root).get_model_version("salt", n).tags for root, n in ((project, "1"), (other, "3"))]
    words = ("verdict", "gate.")
    assert len({str({k: v for k, v in each.items() if k.startswith(words)}) for each in tags}) == 1
    assert "gate.04 retention.force_rmse" in tags[1]
    assert len(connect(other).search_model_versions("name = 'salt'")) == 4
    assert standing(other) == {"champion": "3", "challenger": "1"}
    client: Any = connect(other)
    assert client.get_model_version_by_alias("salt", "champion").tags["strategy"] == "naive"
    assert history.read(other) == history.read(project) and len(history.read(other)) == 2
    tags = client.get_registered_model("salt").tags
    assert sum(tag.startswith(aliases.MOVE) for tag in tags) == 2


MORE = ("log_model_artifacts", "finalize_logged_model")


def _register(root: str, die: str) -> None:
    """In another process: register both strategies; killed at the third call of the function `die` of the store."""
    os.chdir(root)
    client: Any = type(connect(Path(root)))
    own, calls = getattr(client, die), []

    def mortal(*arguments: Any, **named: Any) -> Any:
        calls.append(die)
        return own(*arguments, **named) if len(calls) < 3 else os._exit(9)

    setattr(client, die, mortal)
    for name in ("naive", "replay"):
        register.run(Project.here(), name)


@pytest.mark.parametrize(
    "die", ["create_model_version", *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)]
)
def test_killed_while_registering(project: Path, tmp_path: Path, die: str) -> None:
    """No version without its weights; the same command again registers the rest, each model once."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("runs", "foundations"):
        shutil.copytree(project / name, other / name)
    shutil.copy(project / "params.yaml", other)
    shutil.rmtree(other / "runs/register")
    worker = multiprocessing.get_context("spawn").Process(target=_register, args=(str(other), die))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    client: Any = connect(other)
    for version in client.search_model_versions("name = 'salt'"):
        retemper.load(f"salt/{version.version}", device="cpu", root=other)
    for name in ("naive", "replay"):
        register.run(Project(other, load_settings(other / "params.yaml")), name)
    registry = Registry(client, other)
    found = registry.versions("salt")
    assert len({version.model for version in found}) == len(found) == 4
    for version in found:
        assert attachments.fetch(registry, version) is not None


def test_no_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = set_gates(project, GATES)
    judge(project, settings)
    before = (project / "promotions.jsonl").read_bytes(), (project / "runs/promote/verdict.json").read_bytes()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    for call in (
        lambda: judge(project, settings),
        lambda: aliases.move(project, "salt", "champion", "3", "override", "x"),
        lambda: promote.rollback(Project(project, settings), "salt", "x"),
    ):
        with pytest.raises(RetemperError, match="MLflow at http"):
            call()
    assert before == ((project / "promotions.jsonl").read_bytes(), (project / "runs/promote/verdict.json").read_bytes())


def test_full_disk(project: Path, tmp_path: Path) -> None:
    """On a full disk nothing moves and nothing is lost; with space again the same command works."""
    with small_disk(tmp_path / "disk") as disk:
        aliases.move(project, "salt", "champion", "1", "override", "first")
        for name in ("mlflow.db", "promotions.jsonl", "params.yaml"):
            shutil.copy(project / name, disk / name)
        fill(disk)
        with pytest.raises(RetemperError, match="disk space"):
            aliases.move(disk, "salt", "champion", "3", "override", "full")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aliases, "NEED", 0)  # the disk fills after the check
            with pytest.raises(RetemperError):
                aliases.move(disk, "salt", "champion", "3", "override", "full " * 100)
        assert [move.reason for move in history.read(disk)] == ["first"]
        (disk / "filler").unlink()
        moves, held = aliases.current(disk, "salt")
        assert held["champion"] is not None and moves[0].reason == "first"
        assert len(moves) == (2 if held["champion"].version == "3" else 1)  # it happened, or it did not
        assert standing(disk)["champion"] == held["champion"].version


# Bytes: for nothing; for the database and no weights; for one model.
@pytest.mark.parametrize("free", [150_000, *(pytest.param(each, marks=pytest.mark.slow) for each in (0, 400_000))])
def test_full_disk_while_registering(project: Path, tmp_path: Path, free: int) -> None:
    """What is registered on a disk that fills loads; with space again the same command registers the rest."""
    with small_disk(tmp_path / "disk") as disk:
        for name in ("runs", "foundations"):
            shutil.copytree(project / name, disk / name)
        shutil.copy(project / "params.yaml", disk)
        shutil.rmtree(disk / "runs/register")
        client: Any = connect(disk)
        fill(disk)
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - free)
        settings = load_settings(disk / "params.yaml")
        with pytest.raises(RetemperError, match="No space left|failed|disk"):
            register.run(Project(disk, settings), "naive")
        assert not (disk / "runs/register/naive.json").exists()
        (disk / "filler").unlink()
        for version in client.search_model_versions("name = 'salt'"):
            retemper.load(f"salt/{version.version}", device="cpu", root=disk)
        register.run(Project(disk, settings), "naive")
        registry = Registry(client, disk)
        found = registry.versions("salt")
        assert sorted(version.model.seed for version in found) == [1, 2]
        for version in found:
            retemper.load(version.name, device="cpu", root=disk)
            assert attachments.fetch(registry, version) is not None
