"""Search spaces: every strategy's every parameter changes what runs; defaults and conditions hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT
from sweeps import make_project
from trainings import run

from retemper.config import strategies
from retemper.config.project import Project
from retemper.config.settings import Sweep, load_settings
from retemper.core import sources
from retemper.core.errors import RetemperError
from retemper.finetune import planning
from retemper.records.training import Effective
from retemper.sweep import space as spaces

# where each parameter shows in effective.json, which is read back from MACE's own objects
SHOWS = {
    "training.lr": lambda ran: ran.lr,
    "training.ema_decay": lambda ran: ran.ema_decay,
    "training.clip_grad": lambda ran: ran.clip_grad,
    "training.batch_size": lambda ran: ran.batch_size,
    "lora.rank": lambda ran: ran.lora.rank,
    "lora.alpha": lambda ran: ran.lora.alpha,
    "replay.weight": lambda ran: ran.replay_weight,
    "replay.number": lambda ran: ran.frames["pt_head"][0],
    "replay.batch_size": lambda ran: ran.replay_batch_size,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Any]) -> Path:
    return make_project(tmp_path_factory.mktemp("space") / "project", files)


def space_of(project: Path, name: str, n_train: int = 14, n_replay: int = 12) -> spaces.Space:
    return spaces.build(strategies.load(name, project), load_settings(project / "params.yaml"), n_train, n_replay)


def other(one: Any, default: Any) -> Any:
    """A value of a range that is not the default."""
    if one.choices is not None:
        return next(choice for choice in one.choices if choice not in (default, None))
    return one.low if default != one.low else one.high


@pytest.mark.parametrize("name", strategies.names(ROOT))
def test_every_parameter_changes_the_plan(name: str, project: Path) -> None:
    """One parameter at a time: another plan, and the value is in it."""
    settings = load_settings(project / "params.yaml")
    space = space_of(project, name, n_replay=1000)
    (default,) = planning.plans(Project(project, settings), name, space.default())
    assert default.key == planning.plans(Project(project, settings), name)[0].key  # the first trial is the strategy
    keys = {default.key}
    for path in space.ranges:
        value = 5 if path == "replay.number" else other(space.active(path, space.default()), space.defaults[path])
        (plan,) = planning.plans(Project(project, settings), name, {path: value})
        assert plan.key not in keys
        keys.add(plan.key)
        assert strategies.value_at(plan.strategy, path) == value


@pytest.mark.parametrize("name", strategies.names(ROOT))
def test_every_parameter_reaches_mace(name: str, project: Path, tmp_path: Path) -> None:
    """A training with every parameter changed: MACE's optimiser, average, loss and loader hold the values."""
    settings = load_settings(project / "params.yaml")
    space = space_of(project, name)
    params: dict[str, Any] = {}
    for path in space.ranges:
        one = space.active(path, params)
        if one is not None:
            params[path] = other(one, space.defaults[path]) if path != "replay.number" else 5
    (default,) = planning.plans(Project(project, settings), name)
    (plan,) = planning.plans(Project(project, settings), name, params)
    run(dataclasses.replace(plan, epochs=1), tmp_path)
    ran = Effective.read(tmp_path / "effective.json").ran
    assert set(params) <= set(SHOWS), "a new parameter needs a line in SHOWS"
    for path, value in params.items():
        assert SHOWS[path](ran) == pytest.approx(value, rel=1e-6), path
        before = strategies.value_at(default.strategy, path)
        assert before != value


@pytest.mark.parametrize("name", strategies.names(ROOT))
def test_samples_are_points_of_the_space(name: str, project: Path) -> None:
    """What Optuna draws makes a valid strategy; conditions hold; the default comes first when it is queued."""
    space = space_of(project, name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.default())
    for number in range(30):
        trial = study.ask()
        space(trial)
        if number == 0:
            assert trial.params == space.default()
        assert space.complete(trial.params) == trial.params
        strategy = strategies.load(name, project, trial.params)
        if "lora.rank" in trial.params:
            assert 0.125 <= trial.params["lora.alpha"] / trial.params["lora.rank"] <= 4.0
            assert strategy.lora is not None and strategy.lora.alpha == trial.params["lora.alpha"]


def test_lora_alpha_follows_the_rank(project: Path) -> None:
    space = space_of(project, "lora")
    assert space.complete({"lora.rank": 64, "lora.alpha": 128.0}) is not None
    assert space.complete({"lora.rank": 4, "lora.alpha": 128.0}) is None
    alpha = space.union("lora.alpha")
    assert (alpha.low, alpha.high) == (0.5, 256.0)


def test_a_condition_switches_a_parameter_off() -> None:
    """A parameter whose `when` does not hold is not asked, and keeps its default."""
    ranges = {
        "training.ema_decay": [strategies.SearchRange(choices=[None, 0.99])],
        "training.lr": [strategies.SearchRange(low=1e-4, high=1e-2, log=True, when={"training.ema_decay": [0.99]})],
    }
    space = spaces.Space(ranges, {"training.ema_decay": 0.99, "training.lr": 1e-3})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = study.ask()
        space(trial)
        assert ("training.lr" in trial.params) == (trial.params["training.ema_decay"] == 0.99)
    assert space.complete({"training.ema_decay": None, "training.lr": 5e-3}) is None
    assert space.complete({"training.ema_decay": None, "training.lr": 1e-3}) == {"training.ema_decay": None}


def test_spaces_fit_the_data_and_hold_the_defaults(project: Path) -> None:
    """Batches above the training set and replay sets above what was chosen are left out; overrides widen."""
    space = space_of(project, "replay", n_train=10, n_replay=60)
    assert space.ranges["training.batch_size"][0].choices == [None, 2, 8]  # 4 is what null stands for, 16 > 10
    assert space.ranges["replay.number"][0].choices == [None, 50]
    settings = load_settings(project / "params.yaml")
    moved = strategies.load("naive", project, {"training.lr": 0.5, "training.ema_decay": 0.95})
    space = spaces.build(moved, settings, 14, 0)
    assert space.default()["training.lr"] == 0.5 and space.ranges["training.lr"][0].high == 0.5
    assert space.ranges["training.ema_decay"][0].choices[0] == 0.95


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"lora.alpha": {"low": 1, "high": 2, "when": {"lora.rank": [4]}}}, "listed before"),
        ({"training.lr": {"low": 2, "high": 1}}, "low must be below high"),
        ({"training.lr": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"training.lr": {"low": 1}}, "either low and high, or choices"),
        ({"training.lr": [{"choices": [1]}, {"choices": [2]}]}, "must be ranges"),
    ],
)
def test_wrong_spaces(search: dict[str, Any], message: str, project: Path) -> None:
    with pytest.raises(RetemperError, match=message):
        strategies.load("lora", project, {"search": search})


def test_settings_of_the_sweep() -> None:
    assert Sweep().trials == 0 and Sweep().objectives == ["target", "retention"]
    with pytest.raises(ValueError, match="listed twice"):
        Sweep(objectives=["target", "target"])


@pytest.mark.hostile("inputs")
@pytest.mark.parametrize(("module", "again"), [("retemper.finetune.mace.loss", True), ("retemper.report.page", False)])
def test_mended_code_of_the_trainer_trains_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, module: str, again: bool
) -> None:
    """A finished training was found in the cache under the same key, whatever had been mended since."""
    before = planning.plans(Project.here(project), "naive")[0].key
    statements = sources.statements
    monkeypatch.setattr(sources, "statements", lambda name: "mended" if name == module else statements(name))
    after = planning.plans(Project.here(project), "naive")[0].key
    assert (after != before) is again
