"""From registered models to a champion: verdict, aliases, override, rollback, export, and what faults leave behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import build_tiny
from run_files import water_frames, write_evaluation, write_preparation, write_project, write_training

import retemper
from retemper import cli, evaluate, registry
from retemper.errors import RetemperError
from retemper.files import read_json
from retemper.frames import write_frames
from retemper.mlflow_store import connect, tracking_uri
from retemper.promotion import aliases, export, history, kept, promote, show
from retemper.promotion.history import Model
from retemper.settings import Settings, load_settings

GATES = [
    {"metric": "target.force_rmse", "max": 60.0},
    {"metric": "target.force_rmse", "relative_to": "foundation"},
    {"metric": "target.force_rmse", "relative_to": "champion"},
    {"metric": "retention.force_rmse", "relative_to": "champion", "margin": 0.1},
]


def set_gates(root: Path, gates: list[dict[str, Any]], **more: Any) -> Settings:
    """Write ``promotion`` into ``params.yaml``."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promotion"] = {"gates": gates, "resamples": 1000, **more}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return load_settings(root / "params.yaml")


def standing(root: Path) -> dict[str, str | None]:
    """Versions that the aliases point to."""
    found = dict(connect(root).get_registered_model("salt").aliases)
    return {alias: str(found[alias]) if alias in found else None for alias in ("champion", "challenger")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with naive (versions 1, 2) and replay (3, 4) registered, and nothing promoted."""
    folder = tmp_path_factory.mktemp("promotion")
    root = folder / "project"
    root.mkdir()
    settings = write_project(root, tiny_model, ["naive", "replay"], [1, 2])
    models = {k: build_tiny(folder / f"{k}.model", ["pt_head", "Default"], seed=k) for k in (3, 4)}
    write_preparation(root)
    write_training(root, "naive", {1: tiny_model, 2: build_tiny(folder / "2.model", ["Default"], seed=2)})
    write_training(root, "replay", models, replay="original")
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {1: 30.0, 2: 30.3}, {1: 100.0, 2: 101.0}, 50.0)
    write_evaluation(root, "replay", {3: 40.0, 4: 40.4}, {3: 60.0, 4: 61.0}, 50.0, replay_head={3: 55.0, 4: 56.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("naive", "replay"):
            registry.register(root, settings, name)
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The built project; what a test promotes and changes is taken back after it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(built)
    keep = ("runs", "params.yaml")
    for name in keep:
        (shutil.copytree if (built / name).is_dir() else shutil.copy)(built / name, tmp_path / name)
    yield built
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.rmtree(built / "runs")
    for name in keep:
        (shutil.copytree if (tmp_path / name).is_dir() else shutil.copy)(tmp_path / name, built / name)
    (built / "promotions.jsonl").unlink(missing_ok=True)
    client: Any = connect(built)
    registered = client.get_registered_model("salt")
    for alias in dict(registered.aliases):
        if alias != "candidate":
            client.delete_registered_model_alias("salt", alias)
    for tag in registered.tags:
        client.delete_registered_model_tag("salt", tag)
    for version in client.search_model_versions("name = 'salt'"):
        for tag in version.tags:
            if tag.startswith(("gate.", "verdict", "promotion.")):
                client.delete_model_version_tag("salt", version.version, tag)


# ------------------------------------------------------------------ the way a user goes


def test_from_gates_to_champion_and_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = project / "told.txt"
    settings = set_gates(project, GATES, hook=f"tee -a {told}")
    content = promote.run(project, settings)
    assert (content["champion"], content["challenger"]) == ("naive", "replay")
    assert standing(project) == {"champion": "1", "challenger": "3"}
    assert [json.loads(line)["alias"] for line in told.read_text().splitlines()] == ["champion", "challenger"]
    assert read_json(project / "runs/promote/verdict.json") == content
    table = (project / "runs/promote/verdict.md").read_text()
    assert "| target.force_rmse ≤ 60 meV/Å | 30 [28.5, 31.5] | passed | holds |" in table
    version: Any = connect(project).get_model_version("salt", "1")
    assert version.tags["verdict"] == "passed"
    assert version.description.count("## Gates") == 1 and "| target.force_rmse ≤ 60 meV/Å | 30" in version.description
    assert version.tags["gate.01 target.force_rmse"] == "passed: ≤ 60 meV/Å; 30 [28.5, 31.5]; holds"
    assert "-66." in version.tags["gate.02 target.force_rmse"]  # 30 of 90

    again = promote.run(project, settings)  # nothing new: nothing moves
    assert again["champion"] is None and standing(project) == {"champion": "1", "challenger": "3"}
    assert len(history.read(project)) == 2
    failed = again["candidates"]["replay"]["failures"]
    assert len(failed) == 1 and failed[0].startswith("target.force_rmse better than the champion: +33.3 %")

    with pytest.raises(SystemExit):
        cli.main(["promote", "salt/3"])
    assert "does not pass the gates" in capsys.readouterr().err
    cli.main(["promote", "salt@3", "--reason", "keeps the rest of the table"])
    assert standing(project)["champion"] == "3"
    moved = history.read(project)[-1]
    assert (moved.how, moved.reason, moved.version) == ("override", "keeps the rest of the table", "3")
    cli.main(["rollback", "salt", "--reason", "crashed in production"])
    assert standing(project)["champion"] == "1"
    with pytest.raises(RetemperError, match="no earlier champion"):
        promote.rollback(project, settings, "salt", "again")

    capsys.readouterr()
    cli.main(["models"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["salt/1", "naive", "1", "30", "3", "100", "2", "passed", "1", "of", "2", "candidate,", "champion"] in rows
    assert "salt/2 naive 2 30.3 3 101 2.02 seed 1 was judged –".split() in rows
    cli.main(["show", "salt@champion"])
    shown = capsys.readouterr().out
    assert "crashed in production" in shown and "01 target.force_rmse: passed" in shown and "## Measures" in shown
    cli.main(["compare", "salt@champion", "salt/3"])
    compared = capsys.readouterr().out
    assert "target.force_rmse" in compared and "1.333" in compared and "first is better" in compared
    digest = connect(project).get_model_version("salt", "3").tags["data.replay"]
    cli.main(["lineage", digest[:8]])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["salt/3", "salt/4"]
    with pytest.raises(SystemExit):
        cli.main(["lineage", "abcdef0123"])


def test_a_model_that_was_rolled_back_waits_for_a_person(project: Path) -> None:
    settings = set_gates(project, GATES[:3])
    aliases.move(project, "salt", "champion", "3", "override", "first")
    assert promote.run(project, settings)["champion"] == "naive"
    promote.rollback(project, settings, "salt", "explodes")
    content = promote.run(project, settings)
    assert content["champion"] is None and "explodes" in content["candidates"]["naive"]["barred"]
    assert standing(project)["champion"] == "3"
    promote.override(project, settings, "salt", "1", "champion", "fixed by a smaller time step")
    assert standing(project)["champion"] == "1"


def test_missing_robustness_and_measured_seed(project: Path) -> None:
    """Robustness of one seed alone: the missing one fails, the measured one stands for its strategy."""
    settings = set_gates(project, [*GATES, {"metric": "robustness.rss", "max": 10.0}])
    failures = promote.run(project, settings)["candidates"]["naive"]["failures"]
    assert failures == ["robustness.rss ≤ 10: missing: not measured (robustness.metrics)"]
    assert standing(project) == {"champion": None, "challenger": None}
    rss = {"value": 4.0, "low": 1.0, "high": 9.0, "unit": "%", "score": 1.0, "n": 48, "reason": None, "details": {}}
    folder = project / "runs/robustness/naive"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"seeds": {"2": {"metrics": {"rss": rss}}}}))
    content = promote.run(project, settings)
    assert content["candidates"]["naive"]["seed"] == 2 and content["champion"] == "naive"
    why = "lowest validation loss of the seeds with robustness.rss (2 of 2 seeds)"
    assert content["candidates"]["naive"]["chosen"] == why and why in (project / "runs/promote/verdict.md").read_text()
    other = kept.fetch(connect(project), project, connect(project).get_model_version("salt", "1"))
    assert other is not None
    assert other.number("robustness.rss").reason == "not measured for seed 1, only for 2 (robustness.seeds)"
    assert connect(project).get_model_version("salt", "1").tags["verdict"] == "seed 2 was judged"
    measured = kept.fetch(connect(project), project, connect(project).get_model_version("salt", "2"))
    assert measured is not None and measured.number("robustness.rss").value == 4.0


def test_gates_are_versioned(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = promote.run(project, set_gates(project, GATES))
    assert first["gates"][0] == {"metric": "target.force_rmse", "max": 60.0}
    tags: Any = connect(project).get_model_version("salt", "3").tags
    assert tags["verdict.gates"] == first["gates_digest"] and tags["verdict.rank"] == "2 of 2"
    kept_file = connect(project).get_logged_model(kept.model_id(connect(project).get_model_version("salt", "3")))
    assert read_json(Path(kept_file.artifact_location.removeprefix("file://")) / "retemper/verdict.json") == first
    again = promote.run(project, set_gates(project, GATES))
    assert again["gates_digest"] == first["gates_digest"]
    stricter = promote.run(project, set_gates(project, [{**GATES[0], "max": 59.0}, *GATES[1:]]))
    assert stricter["gates_digest"] != first["gates_digest"]
    capsys.readouterr()
    cli.main(["show", "salt/3"])
    assert f"failed, rank 1 of 1, gates {stricter['gates_digest']}" in capsys.readouterr().out


def test_an_old_verdict_does_not_promote_over_a_new_champion(project: Path) -> None:
    """The verdict allows version 1 against no champion; meanwhile version 4 became champion."""
    settings = set_gates(project, GATES)
    promote.run(project, settings)
    assert promote.override(project, settings, "salt", "1", "champion", None) is None  # it is already
    aliases.move(project, "salt", "champion", "4", "override", "meanwhile")
    with pytest.raises(RetemperError, match="changed in the meantime"):
        promote.override(project, settings, "salt", "1", "champion", None)
    assert standing(project)["champion"] == "4"


def test_champion_that_cannot_be_compared_with_blocks(project: Path) -> None:
    settings = set_gates(project, GATES)
    lost = history.new([], "salt", "champion", Model("f" * 64, "lora", 1), "7", "gates", "elsewhere")
    history.append(project, [lost])
    content = promote.run(project, settings)
    assert content["champion"] is None
    assert "not registered in this store" in content["candidates"]["naive"]["failures"][0]
    assert "not registered here" in show.models(project)
    with pytest.raises(RetemperError, match="lora, seed 1 .*not registered in this store"):
        aliases.move(project, "salt", "champion", "1", "override", "anew")
        promote.rollback(project, settings, "salt", "back")


def test_champion_of_other_frames_is_measured_on_these(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test set changes after naive became champion; its weights are fetched and evaluated on the new one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    root.mkdir()
    write_project(root, tiny_model, ["naive", "replay"], [1])
    write_preparation(root)
    write_training(root, "naive", {1: build_tiny(tmp_path / "1.model", ["Default"], seed=1)})
    write_training(
        root, "replay", {1: build_tiny(tmp_path / "2.model", ["pt_head", "Default"], seed=2)}, replay="original"
    )
    compared = {"metric": "target.force_rmse", "relative_to": "champion", "over": ["frames"]}
    settings = set_gates(root, [{"metric": "target.force_rmse", "max": 1e6}, compared])
    for name in ("foundation", "naive"):
        evaluate.run(name, settings, root)
    registry.register(root, settings, "naive")
    first = settings.model_copy(update={"strategies": ["naive"]})
    assert promote.run(root, first)["champion"] == "naive"

    write_frames(root / "runs/dataset/test.extxyz", water_frames(6, seed=77))
    for name in ("foundation", "replay", "naive"):
        evaluate.run(name, settings, root)
    registry.register(root, settings, "replay")  # naive is not registered again: only the store knows it
    second = settings.model_copy(update={"strategies": ["replay"]})
    (gate,) = [g for g in promote.run(root, second)["candidates"]["replay"]["gates"] if g["compared"]]
    rmse = {
        name: read_json(root / f"runs/evaluate/{name}/metrics.json")["seeds"]["1"]["target"]["force_rmse"]["value"]
        for name in ("naive", "replay")
    }
    assert gate["compared"]["value"] == pytest.approx(rmse["replay"] / rmse["naive"], rel=1e-6)
    assert len(list((root / ".cache/promotion").glob("*.json"))) == 1


# ------------------------------------------------------------------ out again

EXPORTS = [("model", "salt-3.model"), ("ase", "salt-3-ase.py"), ("lammps", "salt-3-lammps.pt"),
           ("lammps-mliap", "salt-3-mliap_lammps.pt"), ("torch-sim", "salt-3-torch-sim.py")]  # fmt: skip


@pytest.mark.parametrize(("to", "file"), EXPORTS)
def test_exports_give_the_registered_models_numbers(project: Path, tmp_path: Path, to: str, file: str) -> None:
    """`export` compares by itself; here the right head is told from the wrong one by another way to the weights."""
    if to == "torch-sim":
        pytest.importorskip("torch_sim")
    made = export.export(project, "salt/3", to, tmp_path)
    assert file in {path.name for path in made}
    about = read_json(tmp_path / f"salt-3-{to}.json")
    assert ("lammps" in about) == to.startswith("lammps")
    assert about["head"] == "Default" and about["elements"] == ["H", "C", "N", "O", "Na", "Cl"]
    weights = project / "runs/finetune/replay/seed-3/model.model"
    with pytest.raises(RetemperError, match="does not give MACE's own energies"):
        export._check(weights, "pt_head", made[0], to, "float64")
    assert not made[0].exists()


def test_ase_script_and_load_give_the_same_energies(project: Path, tmp_path: Path) -> None:
    export.export(project, "salt/3", "ase", tmp_path)
    code = (
        "import runpy, sys; from run_files import water_frames\n"
        "calculator = runpy.run_path(sys.argv[1])['calculator']()\n"
        "print([float(calculator.get_potential_energy(a)) for a in water_frames(2, seed=5)])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "salt-3-ase.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    calculator = retemper.load("models:/salt/3", root=project)
    own = [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(2, seed=5)]
    assert np.abs(np.subtract(json.loads(done.stdout.splitlines()[-1]), own)).max() < 1e-6


def test_load_for_torch_sim_uses_the_target_head(project: Path) -> None:
    torch_sim = pytest.importorskip("torch_sim")
    import torch

    model = retemper.load("salt/3", to="torch-sim", device="cpu", root=project)
    calculator = retemper.load("salt/3", device="cpu", root=project)
    frames = water_frames(2, seed=5)
    for atoms in frames:
        atoms.center(vacuum=8.0)
    found = model(torch_sim.io.atoms_to_state(frames, torch.device("cpu"), torch.float64))
    own = [calculator.get_potential_energy(atoms) for atoms in frames]
    assert np.abs(found["energy"].detach().numpy() - own).max() < 1e-6


def test_wrong_names_and_devices(project: Path) -> None:
    for call, message in (
        (lambda: retemper.load("salt/1", to="jax", root=project), "ase, torch-sim"),
        (lambda: retemper.load("salt/1", device="cuda:99", root=project), "is not there"),
        (lambda: retemper.load("salt@champion", root=project), "Unknown alias of salt 'champion'"),
        (lambda: aliases.rollback(project, "slat", "x"), "did you mean 'salt'"),
        (lambda: aliases.move(project, "salt", "winner", "1", "override", "x"), "challenger, champion"),
        (lambda: aliases.move(project, "salt", "champion", "9", "override", "x"), "Unknown version of salt '9'"),
        (lambda: promote.override(project, load_settings("params.yaml"), "salt", "1", "champion", None), "no verdict"),
    ):
        with pytest.raises(RetemperError, match=message):
            call()


# ------------------------------------------------------------------ faults


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
    moves, held = aliases.present(project, "salt")
    assert held["champion"] is not None and held["champion"].version == "3" and standing(project)["champion"] == "3"
    assert [move.reason for move in history.read(project)] == ["first", "to 3"] == [move.reason for move in moves]


def test_killed_before_a_move_happened(project: Path) -> None:
    aliases.move(project, "salt", "champion", "1", "override", "first")
    assert _processes(project, ("3", "anyone", "set_registered_model_tag")) == [9]
    assert aliases.present(project, "salt")[1]["champion"] == aliases.Standing(history.read(project)[0].to, "1")  # type: ignore[arg-type]
    assert len(history.read(project)) == 1


def test_killed_between_registration_and_alias(project: Path) -> None:
    """Registered, judged, and gone before any alias: the same command again moves them."""
    settings = set_gates(project, GATES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aliases, "move", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote.run(project, settings)
    assert standing(project) == {"champion": None, "challenger": None}
    promote.run(project, settings)
    assert standing(project) == {"champion": "1", "challenger": "3"}
    assert len(connect(project).search_model_versions("name = 'salt'")) == 4


def test_moved_by_hand_in_mlflow(project: Path) -> None:
    aliases.move(project, "salt", "champion", "1", "override", "first")
    connect(project).set_registered_model_alias("salt", "champion", "4")
    moves, held = aliases.present(project, "salt")
    assert held["champion"] is not None and held["champion"].version == "4"
    assert [(move.how, move.version) for move in moves] == [("override", "1"), ("outside", "4")]
    assert aliases.rollback(project, "salt", "not that one").version == "1"


def test_store_rebuilt_from_files_has_its_champion(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another checkout with the files and an empty store: `retemper sync`, on the versions' new numbers."""
    settings = set_gates(project, GATES)
    promote.run(project, settings)
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
        cli.main(["sync"])
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
        registry.register(root, load_settings("params.yaml"), name)


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
        registry.register(other, load_settings(other / "params.yaml"), name)
    found = client.search_model_versions("name = 'salt'")
    assert len({aliases.model_of(version) for version in found}) == len(found) == 4
    for version in found:
        assert kept.fetch(client, other, version) is not None


def test_loads_without_the_project(project: Path) -> None:
    """A fresh process in another folder that knows nothing but MLFLOW_TRACKING_URI."""
    aliases.move(project, "salt", "champion", "3", "override", "x")
    code = (
        "import retemper; from run_files import water_frames\n"
        "calculator = retemper.load('models:/salt@champion')\n"
        "print([float(calculator.get_potential_energy(a)) for a in water_frames(2, seed=5)])"
    )
    paths = [str(Path(registry.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": tracking_uri(project)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    calculator = retemper.load("salt/3", device="cpu", root=project)
    own = [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(2, seed=5)]
    assert np.abs(np.subtract(json.loads(done.stdout.splitlines()[-1]), own)).max() < 1e-6


def test_no_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = set_gates(project, GATES)
    promote.run(project, settings)
    before = (project / "promotions.jsonl").read_bytes(), (project / "runs/promote/verdict.json").read_bytes()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    for call in (
        lambda: promote.run(project, settings),
        lambda: aliases.move(project, "salt", "champion", "3", "override", "x"),
        lambda: promote.rollback(project, settings, "salt", "x"),
    ):
        with pytest.raises(RetemperError, match="MLflow at http"):
            call()
    assert before == ((project / "promotions.jsonl").read_bytes(), (project / "runs/promote/verdict.json").read_bytes())


def test_full_disk(project: Path, tmp_path: Path) -> None:
    """On a full disk nothing moves and nothing is lost; with space again the same command works."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        aliases.move(project, "salt", "champion", "1", "override", "first")
        for name in ("mlflow.db", "promotions.jsonl", "params.yaml"):
            shutil.copy(project / name, disk / name)
        with (disk / "filler").open("wb") as file, pytest.raises(OSError):
            while True:
                file.write(b"0" * 65536)
                file.flush()
        with pytest.raises(RetemperError, match="disk space"):
            aliases.move(disk, "salt", "champion", "3", "override", "full")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aliases, "NEED", 0)  # the disk fills after the check
            with pytest.raises(RetemperError):
                aliases.move(disk, "salt", "champion", "3", "override", "full " * 100)
        assert [move.reason for move in history.read(disk)] == ["first"]
        (disk / "filler").unlink()
        moves, held = aliases.present(disk, "salt")
        assert held["champion"] is not None and moves[0].reason == "first"
        assert len(moves) == (2 if held["champion"].version == "3" else 1)  # it happened, or it did not
        assert standing(disk)["champion"] == held["champion"].version
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Bytes: for nothing; for the database and no weights; for one model.
@pytest.mark.parametrize("free", [150_000, *(pytest.param(each, marks=pytest.mark.slow) for each in (0, 400_000))])
def test_full_disk_while_registering(project: Path, tmp_path: Path, free: int) -> None:
    """What is registered on a disk that fills loads; with space again the same command registers the rest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        for name in ("runs", "foundations"):
            shutil.copytree(project / name, disk / name)
        shutil.copy(project / "params.yaml", disk)
        shutil.rmtree(disk / "runs/register")
        client: Any = connect(disk)
        with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"0" * 4096)
                file.flush()
        os.truncate(disk / "filler", (disk / "filler").stat().st_size - free)
        settings = load_settings(disk / "params.yaml")
        with pytest.raises(RetemperError, match="No space left|failed|disk"):
            registry.register(disk, settings, "naive")
        assert not (disk / "runs/register/naive.json").exists()
        (disk / "filler").unlink()
        for version in client.search_model_versions("name = 'salt'"):
            retemper.load(f"salt/{version.version}", device="cpu", root=disk)
        registry.register(disk, settings, "naive")
        found = client.search_model_versions("name = 'salt'")
        assert sorted(aliases.model_of(version).seed for version in found) == [1, 2]
        for version in found:
            retemper.load(f"salt/{version.version}", device="cpu", root=disk)
            assert kept.fetch(client, disk, version) is not None
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
