"""What runs of a study cost, in which order they start, what the budget allows, and what a killed job leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_project import BASE, empty_project, runs, study, write_result

from retemper.core import sealed
from retemper.core.errors import RetemperError
from retemper.core.executor import Executor
from retemper.core.files import write_json
from retemper.records.result import Failure
from retemper.study import cost, result_files, run
from retemper.study.jobs import Job, Outcome, jobs
from retemper.study.places import SPENT
from retemper.study.schedule import DIED, priorities, work_off


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return empty_project(tmp_path)


def test_cost_model_finds_what_was_planted(root: Path) -> None:
    """3 s + 0.01 s an atom trained on + 0.05 s a replayed structure: found from small sizes, right for large ones."""
    frames = "".join(f"3\nProperties=species:S:1:pos:R:3\nO 0 0 {k}\nH 0 1 {k}\nH 1 0 {k}\n" for k in range(400))
    (root / "data/raw/salt.extxyz").write_text(frames)
    designs = {"all": {"axes": {"strategy": ["naive", "replay"], "size": [4, 8, 16, 100], "seed": [1, 2]}}}
    found = runs(root, designs=designs)
    epochs = BASE["finetune"]["epochs"]

    def seconds(one: Any) -> float:
        size = int(one.levels["size"])
        replayed = 4 * size / 4 if one.name == "replay" else 0
        return 3 + 0.01 * epochs * size * 3 + 0.05 * epochs * replayed

    nothing = cost.fit(root)
    assert nothing.runs == 0 and nothing.seconds(found[0]) < nothing.seconds(found[-1])
    for one in found:
        if one.levels["size"] != 100:
            write_result(one, seconds=seconds(one))
    model = cost.fit(root)
    assert model.runs == 12 and model.spread < 1.02
    for one in found:
        assert model.seconds(one) == pytest.approx(seconds(one), rel=0.05)
    left = sum(seconds(one) for one in found if one.levels["size"] == 100)
    assert f"{run.hours(left)} of one core left" in run.dry(root / "studies/some.yaml", root)


def test_the_longest_way_goes_first(root: Path) -> None:
    """A stage counts with the longest chain of what waits for it."""
    found = jobs(runs(root))
    price = {job.name: {"run": 10.0, "replay": 5.0}.get(job.kind, 1.0) for job in found}
    order = priorities(found, price)
    kinds = {job.kind: order[job.name] for job in found if job.kind != "run"}
    assert kinds == {"dataset": 13.0, "e0s": 12.0, "foundation": 11.0, "whole": 16.0, "replay": 15.0}
    assert {order[job.name] for job in found if job.kind == "run"} == {10.0}


def test_budget(root: Path) -> None:
    """What is spent and under way counts: two runs of a minute fit into 2.5 minutes, the third does not."""
    designs = {"all": {"axes": {"seed": [1, 2, 3, 4, 5]}}}
    with pytest.raises(RetemperError, match="not in what it uses"):
        run.Driver(study(root, designs=designs, budget={"gpu_hours": 1}), runs(root, designs=designs), root)
    made = study(root, designs=designs, budget={"cpu_hours": 150 / 3600})
    found = runs(root, designs=designs)
    driver = run.Driver(made, found, root)
    driver.model = cost.Model((60.0, 0.0, 0.0, 0.0), {}, 1, 1.0)
    last = [job for job in driver.jobs if job.kind == "run"]
    assert [driver.may_start(job) for job in last[:3]] == [True, True, False]
    driver.record(last[0], Outcome(20.0, "it broke"))
    driver.model = cost.Model((60.0, 0.0, 0.0, 0.0), {}, 1, 1.0)
    assert driver.may_start(last[3]) and not driver.may_start(last[4])


def test_stages_are_started_for_runs_that_fit(root: Path) -> None:
    """Three sizes: 60 s a run, 10 s for each of its three stages: 200 s hold two runs with theirs, no further stage."""
    designs = {"all": {"axes": {"size": [4, 8, 16]}}}
    made, found = study(root, designs=designs, budget={"cpu_hours": 200 / 3600}), runs(root, designs=designs)
    driver = run.Driver(made, found, root)
    driver.model = cost.Model((60.0, 0.0, 0.0, 0.0), {}, 1, 1.0)
    driver.stages = dict.fromkeys(("dataset", "e0s", "foundation"), 10.0)
    stages = [job for job in driver.jobs if job.kind != "run"]
    assert [job.kind for job in stages] == 3 * ["dataset", "e0s", "foundation"]
    assert [driver.may_start(job) for job in stages] == 6 * [True] + 3 * [False]
    for job in stages[:6]:
        write_json(job.output, {})
        sealed.write_json(job.folder / SPENT, job.folder.name, {"cpu_seconds": 20.0})  # twice what was expected
        driver.record(job, Outcome(20.0))
    assert [driver.may_start(job) for job in driver.jobs if job.kind == "run"] == [False, True, False]  # 120 + 60 s
    sealed.write_json(stages[0].folder / SPENT, stages[0].folder.name, {"cpu_seconds": 150.0})
    again = run.Driver(made, found, root)
    assert again.spent == 250.0 and not any(again.may_start(job) for job in again.missing)


def test_seconds_count_once(root: Path) -> None:
    """A stage took 100 s before a kill and 120 s after it: 220 s, as the next driver says too."""
    found = runs(root)
    job = jobs(found)[0]
    sealed.write_json(job.folder / SPENT, job.folder.name, {"cpu_seconds": 100.0})
    driver = run.Driver(study(root), found, root)
    assert driver.spent == 100.0
    sealed.write_json(job.folder / SPENT, job.folder.name, {"cpu_seconds": 220.0})
    driver.record(job, Outcome(220.0))
    assert driver.spent == run.Driver(study(root), found, root).spent == 220.0


def test_what_a_lost_stage_means_for_its_runs(root: Path) -> None:
    """A stage whose task breaks takes its runs along until the next start; one that may not start none."""
    every = runs(root, designs={"all": {"axes": {"seed": [1, 2]}}})
    dataset, *left = jobs(every)
    write_json(dataset.output, {})
    left[0].folder.parent.mkdir()
    left[0].folder.write_text("no task can have its folder here")
    price = {job.name: 1.0 for job in left}
    asked: list[str] = []
    ended: list[tuple[Job, Outcome]] = []

    def never(job: Job) -> bool:
        asked.append(job.kind)
        return False

    with Executor(1) as pool:
        work_off(left, price, pool, never, lambda *end: ended.append(end))
        assert asked == ["e0s"] and not ended
        work_off(left, price, pool, lambda job: True, lambda *end: ended.append(end))
    assert [(job.kind, found.died) for job, found in ended] == [
        ("e0s", True), ("foundation", True), ("run", True), ("run", True),
    ]  # fmt: skip
    assert str(ended[-1][1].failed).startswith(f"e0s: {DIED}")
    for job, found in ended[2:]:
        result_files.keep(job.output, Failure(cpu_seconds=found.cpu_seconds, failed=str(found.failed), died=found.died))
    run.forget(every)
    assert not any(job.done for job in left)
