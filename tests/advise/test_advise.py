"""Advice: what studies show is recommended for the scope, gaps and extrapolations are named, regret is counted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from study_tables import SYSTEMS, levels, table

from retemper.advise import evidence, facts, recommend, words
from retemper.advise.facts import Distance, Facts
from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.study import table as tables

STRATEGIES = ("naive", "replay", "lora")


def data(**change: object) -> Facts:
    """Facts of some data, without any file."""
    usual = {
        "name": "mine", "train": 60, "sets": {"train": 60, "valid": 6, "test": 9}, "elements": ("H", "O"),
        "dataset": Dataset(files=["mine.extxyz"], level_of_theory="PBE"), "level_of_theory": "PBE", "rank": 2,
        "ratios": (), "atoms": ("H", "O"), "needed": (), "warnings": (), "able": ("mini",),
        "distances": {"mini": Distance(0.1, 0.8, 60)}, "lacking": {},
    }  # fmt: skip
    return Facts(**{**usual, **change})  # type: ignore[arg-type]


def study(noise: float = 0.01, **more: object) -> pd.DataFrame:
    """Naive is the best on the target by a factor of 1.5; replay keeps twice as much."""
    effects = {
        "target_force_rmse": {("strategy", "naive"): -0.4},
        "retention_force_rmse": {("strategy", "replay"): -0.7},
    }
    made = table(levels(strategy=STRATEGIES, seed=(1, 2)), np.random.default_rng(0), effects, noise=noise)
    return made.assign(train=made["size"], study="some", **more)


# ------------------------------------------------------------------ evidence


@pytest.mark.parametrize(("scope", "order"), [("single-system", "naive"), ("family", "replay"), ("broad", "replay")])
def test_ranking_by_scope(scope: str, order: str) -> None:
    """log(target) + lambda log(retention): naive leads by 0.4, and lags by 0.7 lambda - 0.4."""
    found = evidence.ranking(study(), scope)
    assert found is not None and found.levels[0] == order and found.systems == 5
    weight = {"single-system": 0, "family": 1, "broad": 4}[scope]
    lead = abs(0.7 * weight - 0.4)
    assert abs((found.behind("naive") or 0) - (found.behind("replay") or 0)) == pytest.approx(lead, abs=0.03)


def test_gaps_do_not_mislead() -> None:
    """Replay was run on the easy systems alone: its plain mean is the best, its contribution is not."""
    effects = {"target_force_rmse": {("system", "nacl"): -3.0, ("strategy", "naive"): -0.3}}
    points = levels(system=("nacl", "ice"), strategy=("naive", "replay"), seed=(1, 2))
    made = table(
        [p for p in points if p["system"] == "nacl" or p["strategy"] == "naive"], np.random.default_rng(1), effects
    )
    made = made.assign(train=made["size"], study="some")
    mean = np.log(made["target_force_rmse"]).groupby(made["strategy"]).mean()
    assert mean["replay"] < mean["naive"] - 1
    found = evidence.ranking(made, "single-system")
    assert found is not None and found.levels == ("naive", "replay")
    assert found.worse[1] == pytest.approx(0.3, abs=0.1)


def test_standard_errors_are_those_of_other_systems() -> None:
    """Strategies do better on some systems than on others, at every size alike: three sizes are not three systems."""
    rng, values, errors = np.random.default_rng(0), [], []
    for _ in range(60):
        points = levels(strategy=STRATEGIES, size=(20, 80, 320), seed=(1,))
        made = table(points, rng, between=0.3).assign(study="some")
        rows = evidence.score_runs(made.assign(train=made["size"]), "single-system")
        value, error = evidence.contributions(rows, "way", ["block"], None)["naive"]
        values.append(value)
        errors.append(error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)  # by cells: half of it


def test_what_cannot_be_compared_is_left_out() -> None:
    """One strategy on one system, another on another: nothing tells them apart."""
    every = levels(system=("nacl", "ice"), strategy=("naive", "replay"))
    points = [p for p in every if (p["system"] == "nacl") == (p["strategy"] == "naive")]
    made = table(points, np.random.default_rng(1)).assign(train=20, study="some")
    found = evidence.ranking(made, "single-system")
    assert found is not None and len(found.levels) == 1


def test_near_sizes_count_more() -> None:
    """Naive is best of few structures and worst of many: the answer follows the size."""
    made = study()
    made["train"] = made["size"].map({20: 20, 80: 5000})
    many = (made["size"] == 80) & (made["strategy"] == "naive")
    made.loc[many, "target_force_rmse"] *= math.exp(1.0)
    best = [evidence.ranking(made, "single-system", size).levels[0] for size in (20, 5000)]  # type: ignore[union-attr]
    assert best[0] == "naive" and best[1] != "naive"


def test_regret_by_hand() -> None:
    """Two systems that agree and one that does not: there the advice is off by exactly what was planted."""
    made = study(noise=0.0)
    made = made[made["system"].isin(["nacl", "ice", "sn2"])].copy()
    made.loc[(made["system"] == "sn2") & (made["strategy"] == "naive"), "target_force_rmse"] *= math.exp(0.6)
    found = evidence.leave_one_out(made, "single-system")
    assert len(found) == 3 * 2 and {one.chosen for one in found} == {"naive"}
    for one in found:
        worse = 0.2 if one.system == "sn2" else 0.0
        assert one.regret["advice"] == one.regret["naive"] == pytest.approx(worse, abs=1e-9)
        assert one.regret["replay"] == pytest.approx(0.0 if one.system == "sn2" else 0.4, abs=1e-9)
    mean = evidence.mean_regret(found)
    assert mean == pytest.approx({"advice": 0.2 / 3, "naive": 0.2 / 3, "replay": 0.8 / 3}, abs=1e-9)
    text = words.check(made, ["single-system"])
    assert "this advice 7 %, always naive 7 %, always replay 31 %" in text and "chosen naive, best lora" in text


def test_the_best_strategy_of_a_system_is_not_looked_at() -> None:
    """Every system's own best is another: the advice cannot know it, and its regret shows that."""
    made = table(levels(strategy=STRATEGIES, seed=(1,)), np.random.default_rng(0), noise=0.0).assign(
        train=20, study="some"
    )
    for system, best in zip(SYSTEMS, [*STRATEGIES, *STRATEGIES], strict=False):
        made.loc[(made["system"] == system) & (made["strategy"] == best), "target_force_rmse"] *= 0.5
    mean = evidence.mean_regret(evidence.leave_one_out(made, "single-system"))
    assert mean["advice"] > 0.3


# ------------------------------------------------------------------ recommendations


def test_without_runs_the_paper_speaks() -> None:
    for scope, strategy in (("single-system", "naive"), ("broad", "pseudolabel-replay")):
        found = recommend.advise(data(), scope, None)
        assert found.value("strategy") == strategy and found.extrapolations == (
            "everything: no study has been run here",
        )
        assert next(c for c in found.choices if c.subject == "strategy").sure == "guess"


def test_a_study_that_has_not_begun() -> None:
    """A table of waiting runs, without any measured column, is like no runs."""
    made = study()[["run", *("system", "foundation", "e0s", "strategy", "size", "seed"), "study"]].assign(
        state="waiting"
    )
    found = recommend.advise(data(), "broad", made)
    assert found.value("strategy") == "pseudolabel-replay"
    assert found.extrapolations == ("everything: no run has target and retention errors",)
    assert "no two systems" in words.check(made)


def test_with_runs_they_speak() -> None:
    """The best for the scope, how many runs say so, on how many systems; the new system is named as one."""
    found = recommend.advise(data(), "single-system", study())
    choice = next(c for c in found.choices if c.subject == "strategy")
    assert (choice.value, choice.sure, choice.runs) == ("naive", "sure", 60)
    assert "within 5 % of the best on 5 of 5 systems" in choice.reasons
    assert [one.partition(":")[0] for one in found.extrapolations] == ["system"]
    assert recommend.advise(data(), "broad", study()).value("strategy") == "replay"


def test_among_equals_the_papers() -> None:
    """Nothing planted, no noise: any would do, and replay with pseudolabels is what the paper has for broad use."""
    every = (*STRATEGIES, "pseudolabel-replay")
    made = table(levels(strategy=every), np.random.default_rng(0), noise=0.0).assign(train=60, study="some")
    found = recommend.advise(data(), "broad", made)
    assert found.value("strategy") == "pseudolabel-replay"


def test_extrapolations_are_named_and_cost_certainty() -> None:
    far = recommend.advise(data(train=5000), "single-system", study())
    assert far.extrapolations[0] == "size: 5000 training structures, the runs have 20 to 80"
    assert {c.subject: c.sure for c in far.choices}["strategy"] == "guess"
    few = recommend.advise(data(), "single-system", study()[lambda t: t["system"].isin(["nacl", "ice"])])
    assert any("2 were run" in one for one in few.extrapolations)
    other = data(distances={"big": Distance(0.0, 0.5, 60)})
    assert any("no run has big" in one for one in recommend.advise(other, "family", study()).extrapolations)


def test_settings_that_were_varied() -> None:
    """Ten times the learning rate is better by 30 % in runs: it is recommended; where it is not, nothing is."""
    points = [{**p, "training.lr": lr} for p in levels(strategy=("naive",)) for lr in ("own", "x10")]
    for gain, expected in ((-0.3, {"training.lr": 0.01}), (0.3, {})):
        effects = {"target_force_rmse": {("training.lr", "x10"): gain}}
        made = table(points, np.random.default_rng(0), effects).assign(train=60, study="some")
        made["value of training.lr"] = made["training.lr"].map({"own": 1e-3, "x10": 1e-2})
        found = recommend.advise(data(), "single-system", made)
        assert found.settings == expected
    assert yaml.safe_load(words.params(recommend.advise(data(), "broad", None)))["sweep"] == {
        "trials": 16,
        "scope": "broad",
    }


def test_settings_of_runs_that_do_not_compare() -> None:
    """A rate that was run on another foundation only, where all errors are smaller, is not better for that."""
    usual = [{**p, "training.lr": "own"} for p in levels(strategy=("naive", "lora"))]
    other = levels(strategy=("lora",), foundation=("better",), system=("nacl", "ice"), size=(20,))
    effects = {"target_force_rmse": {("foundation", "better"): -2.0}}
    made = table([*usual, *({**p, "training.lr": "x10"} for p in other)], np.random.default_rng(0), effects)
    made = made.assign(train=made["size"], study="some")
    found = recommend.advise(data(), "single-system", made)
    assert found.settings == {} and "x10" not in words.text(found)


def test_settings_that_are_words() -> None:
    points = [{**p, "training.optimizer": o} for p in levels(strategy=("naive",)) for o in ("own", "adamw")]
    effects = {"target_force_rmse": {("training.optimizer", "adamw"): -0.3}}
    made = table(points, np.random.default_rng(0), effects).assign(train=60, study="some")
    made["value of training.optimizer"] = made["training.optimizer"].replace("own", "adam")
    found = recommend.advise(data(), "single-system", made)
    assert found.settings == {"training.optimizer": "adamw"}
    assert yaml.safe_load(words.params(found))["finetune"] == {"overrides": found.settings}
    assert "settings: training.optimizer adamw" in words.text(found)


def test_foundations_by_the_target_alone() -> None:
    """Retention sets differ from foundation to foundation: one with an easy set is not better for it."""
    easy = {"target_force_rmse": {("foundation", "easy"): 0.3}, "retention_force_rmse": {("foundation", "easy"): -2.0}}
    points = levels(strategy=("naive", "lora"), foundation=("mini", "easy"))
    made = table(points, np.random.default_rng(0), easy).assign(train=60, study="some")
    two = data(able=("easy", "mini"), distances={name: Distance(0.1, 0.8, 60) for name in ("easy", "mini")})
    for scope in ("single-system", "broad"):
        choice = recommend.advise(two, scope, made).choices[0]
        assert (choice.value, choice.sure) == ("mini", "likely")
    assert "those of easy are 3" in choice.reasons[-1] and "60 of mini, 60 of easy" in choice.reasons[-1]


def test_a_foundation_without_pool_is_named() -> None:
    """It may be the only one that knows the elements; no distance is no reason for one that lacks them."""
    found = recommend.advise(data(able=("own",), distances={}, lacking={"mini": ("Fe",)}), "family", None).choices[0]
    assert (found.value, found.sure) == ("own", "sure") and any("no distance" in one for one in found.reasons)
    both = recommend.advise(data(able=("mini", "own")), "family", None).choices[0]
    assert (both.value, both.sure) == ("mini", "guess")


def test_studies_are_not_mixed() -> None:
    """A study of short trainings is worse in everything: E0s and strategies are compared within each study."""
    points = levels(strategy=("naive", "lora"), e0s=("reestimate", "average"), size=(20,))
    effects = {"target_energy_rmse": {("e0s", "average"): 2.0}, "target_force_rmse": {("strategy", "naive"): 0.3}}
    made = table(points, np.random.default_rng(0), effects).assign(train=20, study="long")
    short = made[(made["e0s"] == "reestimate") & (made["strategy"] == "lora")].copy().assign(study="a-short")
    for column in ("target_energy_rmse", "target_force_rmse"):
        short[column] *= math.exp(4.0)
    found = recommend.advise(data(train=20), "single-system", pd.concat([short, made], ignore_index=True))
    assert found.value("e0s") == "reestimate" and found.value("strategy") == "lora"
    assert (
        "averaging leaves 7.4" in found.choices[1].reasons[-1] or "averaging leaves 7.3" in found.choices[1].reasons[-1]
    )


def test_advice_that_fixed_choices_beat_says_so() -> None:
    """LoRA is the best on all systems but one, where it fails: that one is not to be known from the others."""
    made = table(levels(strategy=("naive", "lora"), seed=(1,)), np.random.default_rng(0), noise=0.0)
    made = made.assign(train=60, study="some")
    lora, odd = made["strategy"] == "lora", made["system"] == "lpsc"
    made.loc[lora & ~odd, "target_force_rmse"] *= 0.7
    made.loc[lora & odd, "target_force_rmse"] *= 8.0
    found = recommend.advise(data(), "single-system", made)
    choice = next(c for c in found.choices if c.subject == "strategy")
    assert choice.sure == "guess" and any("worse than always naive" in one for one in choice.reasons)


def test_ways_that_are_good_by_turns_are_not_preferred() -> None:
    """Each way but naive is ten times better on one system and worse on all others: its mean is good by one system."""
    points = levels(strategy=("naive", *(f"other-{system}" for system in SYSTEMS)), seed=(1,))
    made = table(points, np.random.default_rng(0), noise=0.0)
    made = made.assign(train=60, study="some")
    for system in SYSTEMS:
        made.loc[(made["system"] == system) & (made["strategy"] != "naive"), "target_force_rmse"] *= 1.4
        best = (made["system"] == system) & (made["strategy"] == f"other-{system}")
        made.loc[best, "target_force_rmse"] *= 0.1 / 1.4
    found = evidence.ranking(made, "single-system")
    assert found is not None and found.levels[0] == "naive" and (found.behind("naive") or 0) > 0


def test_what_is_in_the_way() -> None:
    """Open E0s, few structures, data far away, elements that a foundation lacks."""
    facts_ = data(
        needed=("O",), train=9, distances={"mini": Distance(0.9, 4.0, 60)}, lacking={"narrow": ("O",)}, rank=1,
        ratios=("H and O occur only as 2:1",),
    )  # fmt: skip
    found = recommend.advise(facts_, "family", None)
    text = words.text(found)
    assert "add free atoms of O" in text and "narrow lacks O" in text and "9 training structures: expect" in text
    assert "90 % of the structures are beyond mini's pretraining distribution" in text
    assert yaml.safe_load(words.params(found))["e0s"] == {"method": "reestimate", "force": True}
    assert next(c for c in found.choices if c.subject == "e0s").sure == "likely"


def test_tables_of_several_studies(tmp_path: Path) -> None:
    """Runs that two studies share count once in numbers; a setting that a study lacks is the strategy's own."""
    first = study()
    second = first.assign(**{"training.lr": "own"}).iloc[:10]
    for name, made in (("a", first), ("b", second)):
        tables.write(made, tmp_path / f"studies/{name}/table.csv")
    found = evidence.tables(tmp_path)
    assert found is not None and set(found["study"]) == {"a", "b"}
    assert set(evidence.score_runs(found, "broad")["way"]) == set(STRATEGIES)
    ranked = evidence.ranking(found, "broad")
    assert ranked is not None and ranked.runs == len(first)
    assert evidence.tables(tmp_path / "nowhere") is None


# ------------------------------------------------------------------ facts


def test_facts_of_an_embedded_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Droplets NaCl(H2O)n: rank 2 of 4, settled by free atoms; sets as the stage makes them."""
    monkeypatch.setattr(facts, "distance", lambda *_: None)  # measured in the test below
    found = facts.gather("nacl", ROOT)
    assert (found.rank, found.elements) == (2, ("Cl", "H", "Na", "O"))
    assert set(found.ratios) == {"H and O occur only as 2:1", "Na and Cl occur only as 1:1"}
    assert set(found.atoms) == {"H", "O", "Na", "Cl"} and found.needed == ()
    assert found.train == found.sets["train"] > 100 and found.level_of_theory == "GFN2-xTB"
    with pytest.raises(RetemperError, match="did you mean 'nacl'"):
        facts.gather("nalc", ROOT)


def test_distance_to_the_pool(tiny_model: Path, tmp_path: Path) -> None:
    """Structures of the pool are at zero; compressed ones of it are beyond its held-out ones."""
    from ase.build import molecule

    from retemper.config.foundations import Foundation
    from retemper.core.files import sha256
    from retemper.data.frames import write_frames

    rng = np.random.default_rng(0)
    frames = [molecule(name) for name in ("CH4", "NH3", "H2O", "CH3OH", "C2H6") for _ in range(12)]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    (tmp_path / "f").mkdir()
    write_frames(tmp_path / "f/pool.extxyz", frames[::2])
    write_frames(tmp_path / "f/held.extxyz", frames[1::2])
    (tmp_path / "f/tiny.model").write_bytes(tiny_model.read_bytes())
    entry = Foundation(
        name="tiny", about="", level_of_theory="", licence="", citation="", file="f/tiny.model",
        sha256=sha256(tiny_model), pool="f/pool.extxyz", retention="f/held.extxyz",
    )  # fmt: skip
    same = facts.distance(entry, frames[::2], tmp_path)
    held = facts.distance(entry, frames[1::2], tmp_path)
    for atoms in frames:
        atoms.positions *= 0.7
    far = facts.distance(entry, frames[1::2], tmp_path)
    assert same is not None and held is not None and far is not None
    assert (same.beyond, same.median) == pytest.approx((0.0, 0.0), abs=1e-3)
    assert held.median == pytest.approx(1.0) and held.beyond <= 0.1
    assert far.beyond == 1.0 and far.median > 2
    assert len(list((tmp_path / facts.CACHE).glob("*.descriptors"))) == 2
    assert facts.distance(entry.model_copy(update={"pool": None}), frames, tmp_path) is None
