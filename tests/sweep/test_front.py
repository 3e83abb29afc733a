"""Choosing: the rule of the scopes, the front, importance, early stopping's signal, recovery of a study."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from retemper.config.strategies import SearchRange
from retemper.core.errors import RetemperError
from retemper.sweep import objectives, search
from retemper.sweep import optuna_study as studies
from retemper.sweep import space as spaces
from retemper.sweep.choice import Trial, choose, front, score

BOTH = ["target", "retention"]
SCOPES = ["single-system", "family", "broad"]


def trial(number: int, target: float, retention: float, state: str = "complete") -> Trial:
    return Trial(number, state, {}, {"target": target, "retention": retention})


# replay on LPSC, arXiv:2606.12704 table 9: learning rate 1e-4 and 1e-3, target and replay force RMSE in meV/A
GENTLE, HARSH = trial(0, 18.4, 23.9), trial(1, 18.1, 217.6)


def test_the_collapse_of_the_replay_head_is_seen() -> None:
    """The target alone picks the rate that destroys what was kept; the other scopes do not."""
    assert choose([GENTLE, HARSH], BOTH, "single-system") is HARSH
    assert choose([GENTLE, HARSH], BOTH, "family") is GENTLE
    assert choose([GENTLE, HARSH], BOTH, "broad") is GENTLE
    assert front([GENTLE, HARSH], BOTH) == [HARSH, GENTLE]


@pytest.mark.parametrize("seed", range(20))
def test_the_rule(seed: int) -> None:
    """The choice is on the front, does not depend on units, and forgets less from scope to scope."""
    rng = np.random.default_rng(seed)
    trials = [trial(k, *np.exp(rng.normal(size=2) * [0.5, 1.0] + [4.0, 6.0])) for k in range(16)]
    chosen = [choose(trials, BOTH, scope) for scope in SCOPES]
    assert all(one in front(trials, BOTH) for one in chosen)
    assert chosen[0].values["target"] == min(one.values["target"] for one in trials)
    kept = [one.values["retention"] for one in chosen]
    assert kept == sorted(kept, reverse=True)
    scaled = [trial(one.number, 1e-3 * one.values["target"], 23.06 * one.values["retention"]) for one in trials]
    assert [choose(scaled, BOTH, scope).number for scope in SCOPES] == [one.number for one in chosen]


def test_the_front_is_optunas(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["minimize"] * 2)
    trials = []
    for number in range(30):
        values = rng.integers(1, 8, size=2).astype(float)
        study.add_trial(optuna.trial.create_trial(values=list(values)))
        trials.append(trial(number, *values))
    assert sorted(one.number for one in front(trials, BOTH)) == sorted(one.number for one in study.best_trials)


def test_ties_keep_the_strategys_own_setting() -> None:
    assert choose([trial(0, 2.0, 3.0), trial(1, 3.0, 2.0)], BOTH, "family").number == 0


def test_what_did_not_finish_is_not_chosen() -> None:
    stopped = Trial(1, "pruned", {})
    failed = Trial(2, "failed", {}, reason="Training diverged in epoch 0.\nmore")
    assert choose([trial(0, 5.0, 5.0), stopped, failed], BOTH, "broad").number == 0
    with pytest.raises(RetemperError, match=r"No trial of the sweep came to an end[\s\S]*diverged in epoch 0"):
        choose([stopped, failed], BOTH, "broad")
    with pytest.raises(RetemperError, match="single-system"):
        choose([Trial(0, "complete", {}, {"target": 1.0})], ["target"], "family")


def test_the_signal_is_the_rule_of_family_and_sees_the_replay_head() -> None:
    row = {
        "valid.force_rmse": 18.4,
        "valid_retention.force_rmse": 20.0,
        "valid_replay.force_rmse": 23.9,
        "valid.loss": 0.1,
    }
    assert objectives.signal(row, BOTH) == pytest.approx(score(GENTLE.values, BOTH, "family"))
    assert objectives.signal({**row, "valid_replay.force_rmse": 217.6}, BOTH) > objectives.signal(row, BOTH) + 2
    assert objectives.signal({**row, "valid_replay_omol.force_rmse": 217.6}, BOTH) > objectives.signal(row, BOTH) + 2
    assert objectives.signal(row, ["target"]) == pytest.approx(math.log(18.4))
    assert objectives.signal(row, ["target-loss"]) == pytest.approx(math.log(0.1))


def test_retention_without_structures_is_refused() -> None:
    with pytest.raises(RetemperError, match="to measure it on"):
        objectives.check(BOTH, None)


def space() -> spaces.Space:
    ranges = {
        "a": [SearchRange(low=1e-4, high=1.0, log=True)],
        "b": [SearchRange(low=0.0, high=1.0)],
        "c": [SearchRange(choices=[None, 1, 2])],
    }
    return spaces.Space(ranges, {"a": 1e-2, "b": 0.5, "c": None})


def test_importance_finds_what_matters() -> None:
    """An error that is a power of `a` alone: fANOVA gives `a` nearly everything."""
    rng = np.random.default_rng(1)
    trials = []
    for number in range(40):
        params = {"a": 10 ** rng.uniform(-4, 0), "b": rng.uniform(), "c": [None, 1, 2][rng.integers(3)]}
        trials.append(Trial(number, "complete", params, {"target": params["a"] ** 0.5, "retention": 1.0 + params["b"]}))
    shares = studies.importance(trials, space(), BOTH)
    assert shares["target"]["a"] > 0.9 and shares["retention"]["b"] > 0.9
    assert sum(shares["target"].values()) == pytest.approx(1.0)
    assert studies.importance(trials[:11], space(), BOTH) == {}  # three parameters want twelve trials


def test_a_broken_study_is_taken_up(tmp_path: Path) -> None:
    """Running trials of a killed sweep become failures that do not count; their settings come again first."""
    study = studies.open_study(tmp_path, "s", BOTH)
    studies.begin(study, space())
    first = study.ask()
    space()(first)
    assert first.params == space().default()
    second = study.ask()
    space()(second)
    study.tell(first, [1.0, 2.0])
    study = studies.open_study(tmp_path, "s", BOTH)
    assert studies.recover(study) == 1 and studies.number_ended(study) == 1
    again = study.ask()
    space()(again)
    assert again.params == second.params and again.number == 2
    assert studies.recover(study) == 1  # killed once more
    assert [one.state for one in studies.read(tmp_path)] == ["complete", "waiting"]


def test_rungs_come_back(tmp_path: Path) -> None:
    """Early stopping after a restart compares with the trials of before; the strategy's own setting goes on."""
    study = studies.open_study(tmp_path / "study", "s", ["target"])
    for number, rmse in enumerate((10.0, 11.0, 12.0)):
        folder = tmp_path / f"training/key-{number}"
        folder.mkdir(parents=True)
        rows = "".join(f"{epoch},{rmse - epoch}\n" for epoch in range(8))
        (folder / "history.csv").write_text("epoch,valid.force_rmse\n" + rows)
        attributes = {"training": f"key-{number}", "epochs": 8, "values": {"target": rmse - 7}}
        study.add_trial(optuna.trial.create_trial(values=[rmse - 7], user_attrs=attributes))

    def decision(rmse: float, is_default: bool = False) -> str:
        scheduler = search.halving(study, 8, ["target"], tmp_path / "training")
        one: Any = SimpleNamespace(trial_id="new", config={"task": SimpleNamespace(is_default=is_default)})
        scheduler.on_trial_add(None, one)
        return scheduler.on_trial_result(None, one, {"epoch": 1, "signal": math.log(rmse)})

    assert decision(9.0) == "CONTINUE" and decision(20.0) == "STOP" and decision(20.0, is_default=True) == "CONTINUE"
