"""The champion stays unless a better model passes: re-runs move nothing, a person's decision is not undone by gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny
from promoted import build, judge, set_gates, standing
from run_files import write_evaluation, write_training

from retemper.config.project import Project
from retemper.config.settings import Gate, Promotion
from retemper.core.errors import RetemperError
from retemper.promotion import gates, promote, verdict, views
from retemper.promotion.gates import References
from retemper.records.measures import Number
from retemper.records.verdict import Verdict
from retemper.registry import aliases, history, register
from retemper.registry.measurements import Measured
from retemper.tracking.lock import LOCK_MODEL
from retemper.tracking.store import connect

pytestmark = pytest.mark.hostile("promotion")
LIMIT = {"metric": "target.force_rmse", "max": 60.0}
WITHIN = {"metric": "target.force_rmse", "relative_to": "champion", "margin": 1.0}


def champions(verdicts: list[Verdict]) -> list[str | None]:
    return [verdict.champion for verdict in verdicts]


@pytest.mark.parametrize("conditions", [[LIMIT], [LIMIT, WITHIN]])
def test_the_same_models_again_move_nothing(project: Path, conditions: list[dict[str, Any]]) -> None:
    """Naive (30 meV/A) and replay (40) both pass; they took turns as champion where nothing compared them."""
    settings = set_gates(project, conditions)
    verdicts = [judge(project, settings) for _ in range(4)]
    assert champions(verdicts) == ["naive", None, None, None]
    assert standing(project) == {"champion": "1", "challenger": "3"}
    assert len(history.read(project)) == 2
    (failure,) = verdicts[-1].candidates["replay"].failures
    assert failure == "target.force_rmse lower than the champion's, by value: 40 against 30 meV/Å"


@pytest.mark.slow
def test_only_a_better_model_follows(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = build(tmp_path, tiny_model)
    settings = set_gates(root, [LIMIT])
    assert judge(root, settings).champion == "naive"  # 30 meV/A
    for number, (force, champion) in enumerate(((31.0, None), (30.0, None), (29.0, "replay"))):
        seeds = {
            k: build_tiny(tmp_path / f"{number}-{k}.model", ["pt_head", "Default"], seed=k + number) for k in (5, 9)
        }
        write_training(root, "replay", seeds, replay="original")
        write_evaluation(root, "replay", {5: force, 9: 50.0}, {5: 60.0, 9: 61.0}, 50.0)
        register.run(Project(root, settings), "replay")
        assert judge(root, settings).champion == champion
        assert judge(root, settings).champion is None  # again: nothing moves


def test_a_person_s_choice_outlives_a_re_run(project: Path) -> None:
    settings = set_gates(project, [LIMIT])
    judge(project, settings)
    promote.override(Project(project, settings), "salt", "3", "champion", "keeps the rest of the table")
    content = judge(project, settings)
    assert content.champion is None and standing(project)["champion"] == "3"
    assert "keeps the rest of the table" in content.candidates["naive"].barred
    aliases.move(project, "salt", "champion", "1", "override", "after all")
    assert judge(project, settings).champion is None and standing(project)["champion"] == "1"


def test_tags_that_somebody_edited_are_no_tracebacks(project: Path) -> None:
    settings, client = set_gates(project, [LIMIT]), connect(project)
    judge(project, settings)
    client.set_model_version_tag("salt", "3", "target.force_rmse", "about 40")
    assert "about 40" in views.models(project)
    look = client.get_model_version("salt", "3").tags["verdict.look"]
    client.set_model_version_tag("salt", "3", "verdict.look", "some")
    with pytest.raises(RetemperError, match="verdict.look of salt/3 is no number"):
        judge(project, settings)
    client.set_model_version_tag("salt", "3", "verdict.look", look)
    client.set_model_version_tag("salt", "3", "target.force_rmse", "40.0")


def test_locks_are_no_models(project: Path) -> None:
    client = connect(project)
    client.create_registered_model(f"{LOCK_MODEL}pepper")
    try:
        with pytest.raises(RetemperError) as raised:
            views.show(project, "pepper@champion")
        assert LOCK_MODEL not in str(raised.value)
    finally:
        client.delete_registered_model(f"{LOCK_MODEL}pepper")


# ------------------------------------------------------------------ without a store


def model(name: str, force: float | None, stable: float | None = None, **identity: str) -> Measured:
    numbers = {"target.force_rmse": Number(force, force, force, "meV/Å")} if force is not None else {}
    if stable is not None:
        numbers["robustness.md"] = Number(stable, stable, stable, "%")
    return Measured(name, 1, name, {"target": "t", "retention": "r", **identity}, numbers, {})


def next_champion(
    candidate: Measured, champion: Measured | None, *, by_person: bool = False, obstacle: str | None = None, **more: Any
) -> str | None:
    options = Promotion(gates=[Gate(metric="robustness.md", min=90.0)], **more)
    references = References(None, champion, obstacle, by_person)
    return verdict.decide({"new": candidate}, references, {}, options, {}).champion


GOOD, STANDING = model("new", 20.0, 95.0), model("old", 30.0, 95.0)
CASES: list[tuple[str, Measured, Measured | None, dict[str, Any], bool]] = [
    ("nobody stands", GOOD, None, {}, True),
    ("better", GOOD, STANDING, {}, True),
    ("worse", model("new", 31.0, 99.0), STANDING, {}, False),
    ("as good", model("new", 30.0, 99.0), STANDING, {}, False),
    ("better and not robust", model("new", 10.0, 50.0), STANDING, {}, False),
    ("worse, the champion is not robust", model("new", 31.0, 95.0), model("old", 30.0, 80.0), {}, True),
    ("worse, the champion was never tested", model("new", 31.0, 95.0), model("old", 30.0), {}, True),
    ("worse, a person chose it", model("new", 31.0, 95.0), model("old", 30.0, 80.0), {"by_person": True}, False),
    ("champion without the objective", GOOD, model("old", None, 95.0), {}, False),
    ("candidate without the objective", model("new", None, 95.0), STANDING, {}, False),
    ("champion on other frames", GOOD, model("old", 30.0, 95.0, target="other"), {}, False),
    ("champion that is not here", GOOD, None, {"obstacle": "not registered in this store"}, False),
    ("more of what is good", model("new", 1.0, 99.0), STANDING, {"objective": "robustness.md"}, True),
    ("less of what is good", model("new", 1.0, 94.0), STANDING, {"objective": "robustness.md"}, False),
    (
        "measured otherwise",
        model("new", 1.0, 99.0, **{"robustness.md.level": "quick"}),
        model("old", 1.0, 95.0, **{"robustness.md.level": "thorough"}),
        {"objective": "robustness.md"},
        False,
    ),
]


@pytest.mark.parametrize(("what", "candidate", "champion", "more", "moves"), CASES, ids=[case[0] for case in CASES])
def test_who_follows_whom(
    what: str, candidate: Measured, champion: Measured | None, more: dict[str, Any], moves: bool
) -> None:
    assert (next_champion(candidate, champion, **more) == "new") is moves


def test_the_best_in_an_objective_that_is_better_when_higher() -> None:
    """The lowest share of stable replicas was taken for the best."""
    candidates = {name: model(name, 30.0, share) for name, share in (("a", 91.0), ("b", 99.0), ("c", 95.0))}
    options = Promotion(objective="robustness.md", gates=[Gate(metric="robustness.md", min=90.0)])
    found = verdict.decide(candidates, References(None, None), {}, options, {})
    assert (found.champion, found.challenger) == ("b", "c")
    assert verdict.ranking(found.assessments, "robustness.md") == ["b", "c", "a"]


@pytest.mark.parametrize("metric", ["robustness.md", "retention.force_rmse", "target.stress_rmse"])
@pytest.mark.parametrize("relative_to", ["champion", "foundation"])
def test_a_metric_that_was_not_measured_fails_also_where_nobody_stands(metric: str, relative_to: Any) -> None:
    gate = Gate(metric=metric, relative_to=relative_to)
    (outcome,) = gates.judge(model("new", 20.0), [gate], References(STANDING, None), {})
    assert not outcome.passed and outcome.reason.startswith("missing")
