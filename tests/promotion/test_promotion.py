"""From registered models to a champion and back: verdict, aliases, override, rollback."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny
from promoted import GATES, build, judge, set_gates, standing
from run_files import (
    water_frames,
    write_evaluation,
    write_preparation,
    write_project,
    write_robustness,
    write_training,
)

from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import Gate
from retemper.core.errors import RetemperError
from retemper.core.files import write_json
from retemper.data.frames import write_frames
from retemper.evaluation import stage
from retemper.promotion import compare, promote, views
from retemper.records.evaluation import Evaluation
from retemper.records.record import OtherFormError
from retemper.records.trained_model import TrainedModel
from retemper.records.verdict import Verdict
from retemper.registry import aliases, attachments, history, register
from retemper.registry.client import Registry
from retemper.registry.measurements import read_frames_csv
from retemper.registry.versions import find, resolve
from retemper.tracking.store import connect


def test_a_verdict_of_an_earlier_version_promotes_nobody(project: Path) -> None:
    """Its comparisons took frames as independent, and it counted no looks."""
    settings = set_gates(project, GATES[:1])
    content = judge(project, settings)
    old = {key: value for key, value in content.model_dump(mode="json").items() if key not in ("form", "look")}
    write_json(project / "runs/promote/verdict.json", old)
    client = connect(project)
    for version in client.search_model_versions("name = 'salt'"):
        if "verdict" in version.tags:
            client.delete_model_version_tag("salt", version.version, "verdict")
    promote.sync(Project(project, settings))
    assert all("verdict" not in version.tags for version in client.search_model_versions("name = 'salt'"))
    with pytest.raises(OtherFormError, match="made by another version"):
        promote.override(Project(project, settings), "salt", "1", "champion", None)


def test_versions_kept_without_groups_are_compared_by_those_of_the_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version kept ``measures.json`` without units and ``frames.csv`` without groups."""
    settings = set_gates(project, GATES)
    frames = project / "runs/evaluate/naive/frames.csv"
    new = frames.read_text()
    frames.write_text("\n".join(",".join(line.split(",")[:6] + line.split(",")[7:]) for line in new.splitlines()))
    judge(project, set_gates(project, []))
    frames.write_text(new)
    assert {e.group[0] for e in read_frames_csv(frames)[1].values()} != {""}
    assert "(10 groups)" in views.compare_versions(project, "salt/3", "salt/1")
    assert judge(project, settings).champion


def test_from_gates_to_champion_and_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = project / "told.txt"
    settings = set_gates(project, GATES, hook=f"tee -a {told}")
    content = judge(project, settings)
    assert (content.champion, content.challenger) == ("naive", "replay")
    assert standing(project) == {"champion": "1", "challenger": "3"}
    assert [json.loads(line)["alias"] for line in told.read_text().splitlines()] == ["champion", "challenger"]
    assert Verdict.read(project / "runs/promote/verdict.json") == content
    table = (project / "runs/promote/verdict.md").read_text()
    assert "| target.force_rmse ≤ 60 meV/Å | 30 [28.5, 31.5], 4 groups | passed | holds |" in table
    version: Any = connect(project).get_model_version("salt", "1")
    assert version.tags["verdict"] == "passed"
    assert version.description.count("## Gates") == 1 and "| target.force_rmse ≤ 60 meV/Å | 30" in version.description
    assert version.tags["gate.01 target.force_rmse"] == "passed: ≤ 60 meV/Å; 30 [28.5, 31.5], 4 groups; holds"
    assert "-66." in version.tags["gate.02 target.force_rmse"]  # 30 of 90
    assert "forgetting_ratio" not in table
    with_ratio = set_gates(project, [*GATES, {"metric": "forgetting_ratio", "max": 3}], hook=f"tee -a {told}")
    judge(project, with_ratio)  # labels at PBE, the target at GFN2-xTB
    assert "the retention labels are at PBE" in (project / "runs/promote/verdict.md").read_text()

    again = judge(project, settings)  # nothing new: nothing moves
    assert again.champion is None and standing(project) == {"champion": "1", "challenger": "3"}
    assert len(history.read(project)) == 2
    failed = again.candidates["replay"].failures
    assert len(failed) == 1 and failed[0].startswith("target.force_rmse better than the champion: +33.3 %")

    with pytest.raises(SystemExit):
        main.main(["promote", "salt/3"])
    assert "does not pass the gates" in capsys.readouterr().err
    main.main(["promote", "salt@3", "--reason", "keeps the rest of the table"])
    assert standing(project)["champion"] == "3"
    moved = history.read(project)[-1]
    assert (moved.how, moved.reason, moved.version) == ("override", "keeps the rest of the table", "3")
    main.main(["rollback", "salt", "--reason", "crashed in production"])
    assert standing(project)["champion"] == "1"
    with pytest.raises(RetemperError, match="no earlier champion"):
        promote.rollback(Project(project, settings), "salt", "again")

    capsys.readouterr()
    main.main(["models"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["salt/1", "naive", "1", "30", "3", "100", "2", "passed", "1", "of", "2", "candidate,", "champion"] in rows
    assert "salt/2 naive 2 30.3 3 101 2.02 seed 1 was judged –".split() in rows
    main.main(["show", "salt@champion"])
    shown = capsys.readouterr().out
    assert "crashed in production" in shown and "01 target.force_rmse: passed" in shown and "## Measures" in shown
    main.main(["compare", "salt@champion", "salt/3"])
    compared = capsys.readouterr().out
    assert "target.force_rmse" in compared and "1.333" in compared and "first is better" in compared
    digest = connect(project).get_model_version("salt", "3").tags["data.replay"]
    main.main(["lineage", digest[:8]])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["salt/3", "salt/4"]
    with pytest.raises(SystemExit):
        main.main(["lineage", "abcdef0123"])


@pytest.mark.slow
def test_new_models_on_the_same_frames_are_another_look(tiny_model: Path, tmp_path: Path) -> None:
    """The first verdict compares with nobody; the same models again are the same look; new models or frames are not."""
    root = build(tmp_path, tiny_model)
    settings = set_gates(root, GATES)
    assert [judge(root, settings).look for _ in range(3)] == [0, 1, 1]
    models = {k: build_tiny(tmp_path / f"{k}.model", ["pt_head", "Default"], seed=k + 10) for k in (3, 4)}
    write_training(root, "replay", models, replay="original")
    register.run(Project(root, settings), "replay")
    content = judge(root, settings)
    assert content.look == 2
    error = (1 - settings.promotion.gates[2].confidence) * 6 / (2 * math.pi) ** 2  # one candidate beside the champion
    compared = content.candidates["replay"].gates[2].compared
    ours, theirs = (read_frames_csv(root / f"runs/evaluate/{name}/frames.csv") for name in ("replay", "naive"))
    alone = compare.over_groups(ours[3]["target"], theirs[1]["target"], "force_rmse", 1 - error)
    assert compared is not None and compared.high is not None
    assert compared.high >= alone.high and compared.groups == 10
    for name, force in (("foundation", 90.0), ("naive", 30.0), ("replay", 40.0)):
        seeds = (
            {0: force} if name == "foundation" else {1: force, 2: force} if name == "naive" else {3: force, 4: force}
        )
        write_evaluation(root, name, seeds, dict.fromkeys(seeds, 60.0), 50.0, frames_of="t2")
    assert judge(root, settings).look == 1


def test_a_model_that_was_rolled_back_waits_for_a_person(project: Path) -> None:
    settings = set_gates(project, GATES[:3])
    aliases.move(project, "salt", "champion", "3", "override", "first")
    assert judge(project, settings).champion == "naive"
    promote.rollback(Project(project, settings), "salt", "explodes")
    content = judge(project, settings)
    assert content.champion is None and "explodes" in content.candidates["naive"].barred
    assert standing(project)["champion"] == "3"
    promote.override(Project(project, settings), "salt", "1", "champion", "fixed by a smaller time step")
    assert standing(project)["champion"] == "1"


def test_missing_robustness_and_measured_seed(project: Path) -> None:
    """Robustness of one seed alone: the missing one fails, the measured one stands for its strategy."""
    settings = set_gates(project, [*GATES, {"metric": "robustness.rss", "max": 10.0}])
    failures = judge(project, settings).candidates["naive"].failures
    assert failures == ["robustness.rss ≤ 10: missing: not measured (robustness.metrics)"]
    assert standing(project) == {"champion": None, "challenger": None}
    write_robustness(project, "naive", {"rss": 4.0}, seed=2)
    content = judge(project, settings)
    assert content.candidates["naive"].seed == 2 and content.champion == "naive"
    why = "lowest validation loss of the seeds with robustness.rss (2 of 2 seeds)"
    assert content.candidates["naive"].chosen == why and why in (project / "runs/promote/verdict.md").read_text()
    registry = Registry(connect(project), project)
    other = attachments.fetch(registry, resolve(registry, "salt/1"))
    assert other is not None
    assert other.number("robustness.rss").reason == "not measured for seed 1, only for 2 (robustness.seeds)"
    assert connect(project).get_model_version("salt", "1").tags["verdict"] == "seed 2 was judged"
    measured = attachments.fetch(registry, resolve(registry, "salt/2"))
    assert measured is not None and measured.number("robustness.rss").value == 4.0


def test_gates_are_versioned(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = judge(project, set_gates(project, GATES))
    assert first.gates[0] == Gate(metric="target.force_rmse", max=60.0)
    tags: Any = connect(project).get_model_version("salt", "3").tags
    assert tags["verdict.gates"] == first.gates_digest and tags["verdict.rank"] == "2 of 2"
    kept_file = connect(project).get_logged_model(find("salt/3", project).model_id)
    assert Verdict.read(Path(kept_file.artifact_location.removeprefix("file://")) / "retemper/verdict.json") == first
    again = judge(project, set_gates(project, GATES))
    assert again.gates_digest == first.gates_digest
    stricter = judge(project, set_gates(project, [{**GATES[0], "max": 59.0}, *GATES[1:]]))
    assert stricter.gates_digest != first.gates_digest
    capsys.readouterr()
    main.main(["show", "salt/3"])
    assert f"failed, rank 1 of 1, gates {stricter.gates_digest}" in capsys.readouterr().out


def test_an_old_verdict_does_not_promote_over_a_new_champion(project: Path) -> None:
    """The verdict allows version 1 against no champion; meanwhile version 4 became champion."""
    settings = set_gates(project, GATES)
    judge(project, settings)
    assert promote.override(Project(project, settings), "salt", "1", "champion", None) is None  # it is already
    aliases.move(project, "salt", "champion", "4", "override", "meanwhile")
    with pytest.raises(RetemperError, match="changed in the meantime"):
        promote.override(Project(project, settings), "salt", "1", "champion", None)
    assert standing(project)["champion"] == "4"


def test_champion_that_cannot_be_compared_with_blocks(project: Path) -> None:
    settings = set_gates(project, GATES)
    lost = history.new([], "salt", "champion", TrainedModel("f" * 64, "lora", 1), "7", "gates", "elsewhere")
    history.append(project, [lost])
    content = judge(project, settings)
    assert content.champion is None
    assert "not registered in this store" in content.candidates["naive"].failures[0]
    assert "not registered here" in views.models(project)
    with pytest.raises(RetemperError, match="lora, seed 1 .*not registered in this store"):
        aliases.move(project, "salt", "champion", "1", "override", "anew")
        promote.rollback(Project(project, settings), "salt", "back")


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
        stage.run(Project(root, settings), name)
    register.run(Project(root, settings), "naive")
    first = settings.model_copy(update={"strategies": ["naive"]})
    assert judge(root, first).champion == "naive"

    write_frames(root / "runs/dataset/test.extxyz", water_frames(6, seed=77))
    for name in ("foundation", "replay", "naive"):
        stage.run(Project(root, settings), name)
    register.run(Project(root, settings), "replay")  # naive is not registered again: only the store knows it
    second = settings.model_copy(update={"strategies": ["replay"]})
    (gate,) = [g for g in judge(root, second).candidates["replay"].gates if g.compared]
    rmse = {
        name: Evaluation.read(root / f"runs/evaluate/{name}/metrics.json").seeds[1].target.force_rmse.value
        for name in ("naive", "replay")
    }
    assert gate.compared is not None
    assert gate.compared.value == pytest.approx(rmse["replay"] / rmse["naive"], rel=1e-6)
    assert len(list((root / ".cache/promotion").glob("*.json"))) == 1
