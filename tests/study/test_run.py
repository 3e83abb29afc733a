"""Runs of a study: what their keys depend on, which stages they share, tables; one from end to end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import ROOT
from study_project import BASE, CENTRE, empty_project, make_project, runs, study, write_result

from retemper.core import sources
from retemper.core.errors import RetemperError
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.study import report, run, table
from retemper.study.jobs import jobs, project, reason_of
from retemper.study.places import RESULTS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return empty_project(tmp_path)


def by_name(found: list[Any]) -> dict[str, Any]:
    return {f"{one.name} {one.seed}": one for one in found}


# ------------------------------------------------------------------ keys


def test_keys_name_everything_that_decides(root: Path) -> None:
    """Settings, seed, data, foundation, strategy's content, pool and retention set."""
    before = by_name(runs(root))
    keys = {name: one.keys for name, one in before.items()}
    assert len({one["run"] for one in keys.values()}) == 4
    for section, change in (("finetune", {"epochs": 4}), ("evaluate", {"confidence": 0.8}), ("dataset", {"seed": 3})):
        after = by_name(runs(root, base={**BASE, section: {**BASE[section], **change}}))
        assert all(after[name].key != before[name].key for name in before), section
    after = by_name(runs(root, base={**BASE, "replay": {**BASE["replay"], "heads": ["omol"]}}))
    assert {name for name in before if after[name].key != before[name].key} == {n for n in before if "replay" in n}
    assert all(after[name].keys.get("replay") == keys[name].get("replay") for name in before)  # the same structures
    for path, changed in (
        ("data/raw/salt.extxyz", {"naive 1", "replay 1"}),
        ("foundations/pool.extxyz", {"replay 1"}),
        ("foundations/retention.extxyz", {"naive 1", "replay 1"}),
    ):
        text = (root / path).read_text()
        (root / path).write_text(text.replace("0 0 0", "0 0 1.5"))
        after = by_name(runs(root))
        assert {name for name in ("naive 1", "replay 1") if after[name].key != before[name].key} == changed, path
        (root / path).write_text(text)
    naive = root / "strategies/naive.yaml"
    naive.write_text(naive.read_text().replace("about: ", "about: x "))
    assert by_name(runs(root))["naive 1"].key == before["naive 1"].key
    naive.write_text(naive.read_text() + "loss: {huber_delta: 0.02}\n")
    after = by_name(runs(root))
    assert after["naive 1"].key != before["naive 1"].key and after["replay 1"].key == before["replay 1"].key


def test_what_does_not_decide(root: Path) -> None:
    """Device, workers, params.yaml, the project's place, the strategy's name."""
    before = [one.key for one in runs(root)]
    finetune = {**BASE["finetune"], "device": "cuda", "workers": 3}
    assert [one.key for one in runs(root, base={**BASE, "finetune": finetune})] == before
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("epochs: 10", "epochs: 11"))
    moved = root.with_name("moved")
    shutil.copytree(root, moved)
    assert [one.key for one in runs(moved)] == before
    shutil.copy(moved / "strategies/naive.yaml", moved / "strategies/simple.yaml")
    renamed = runs(moved, designs={"all": {"axes": {"strategy": ["simple"], "seed": [1, 2]}}})
    assert [one.key for one in renamed] == [
        key for key, one in zip(before, runs(root), strict=True) if one.name == "naive"
    ]


@pytest.mark.hostile("inputs")
def test_mended_code_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another E0 module: the shared stages behind it are made anew, results are told and run again on request."""
    made, before = study(root), runs(root)
    write_result(before[0], code=before[0].code)
    write_result(before[1], code=before[1].code)
    assert "other code" not in run.Driver(made, before, root).plan()
    read = sources.statements
    monkeypatch.setattr(sources, "statements", lambda name: read(name) + "'" * (name == "retemper.prepare.e0s"))
    after = runs(root)
    assert [one.key for one in after] == [one.key for one in before]
    changed = {kind for one, two in zip(before, after, strict=True) for kind in one.folders
               if one.folders[kind] != two.folders[kind]}  # fmt: skip
    assert changed == {"e0s", "foundation"}
    write_result(after[1], code=after[1].code)
    found = run.Driver(made, after, root)
    result = table.result(root, after[0].key)
    assert result is not None and run.other_code(after[0], result) == ["e0s"]
    assert "1 of those that are there were made by other code than today's (e0s)" in found.plan()
    run.forget(after, retry=True, again=False)
    assert sum(job.done for job in found.jobs) == 2
    run.forget(after, retry=False, again=True)
    assert [job.key for job in found.jobs if job.done] == [after[1].key]


def test_figures_count_where_they_are_read(root: Path) -> None:
    """The files in the folder of figures, not its name; and only with the metric that reads them."""

    def keys(metric: str, folder: str = "figures") -> list[str]:
        found = runs(root, metrics=[metric], base={**BASE, "robustness": {"figures": folder}})
        return [one.keys[kind] for one in found for kind in ("foundation-robustness", "run")]

    without = keys("observables")
    (root / "figures").mkdir()
    assert keys("observables") == without
    (root / "figures/s66.extxyz").write_text("1")
    before, other = keys("observables"), keys("short_range")
    assert not set(before) & set(without)
    shutil.copytree(root / "figures", root / "moved")
    assert keys("observables", "moved") == before
    (root / "figures/s66.extxyz").write_text("2")
    assert not set(keys("observables")) & set(before) and keys("short_range") == other


def test_stages_are_shared(root: Path) -> None:
    """Two sizes, two E0 methods, naive and both replays, two seeds: counted by hand."""
    axes = {"strategy": ["naive", "replay", "pseudolabel-replay"], "size": [4, 8], "e0s": ["reestimate", "average"]}
    found = jobs(runs(root, designs={"all": {"axes": {**axes, "seed": [1, 2]}}}))
    count = {kind: sum(job.kind == kind for job in found) for kind in {job.kind for job in found}}
    assert count == {
        "dataset": 2, "whole": 1, "e0s": 4, "replay": 1, "pseudolabel": 1, "foundation": 4, "run": 24,
    }  # fmt: skip
    names = [job.name for job in found]
    assert len(set(names)) == len(names)
    for place, job in enumerate(found):
        assert all(names.index(need) < place for need in job.needs)  # stages before what needs them
        assert {need.partition("/")[0] for need in job.needs} <= {*count, "dataset"}


def test_without_metrics_nothing_is_sent_away_from_the_test_set(root: Path) -> None:
    assert not any(job.kind == "foundation-robustness" for job in jobs(runs(root)))
    with_metrics = runs(root, metrics=["short_range"])
    assert [job.kind for job in jobs(with_metrics)].count("foundation-robustness") == 1
    assert with_metrics[0].key != runs(root)[0].key
    with pytest.raises(ValueError, match="did you mean 'short_range'"):
        runs(root, metrics=["short_rnge"])


def test_files_that_are_missing_are_named(root: Path) -> None:
    (root / "data/raw/salt.extxyz").unlink()
    with pytest.raises(RetemperError, match="salt.extxyz does not exist"):
        run.dry(root / "studies/some.yaml", root) if study(root) else None


def test_a_run_reads_what_its_settings_name(root: Path) -> None:
    """Retention set, reference, figures and weights may lie anywhere in the project; what cannot be linked is named."""
    names = ("kept/ret.extxyz", "rdf.extxyz", "drawn/sn2/path.extxyz", "weights/tiny.model")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "foundations/tiny.model", root / name)
    catalogue = root / "foundations/foundations.yaml"
    catalogue.write_text(catalogue.read_text().replace("foundations/tiny.model", "weights/tiny.model"))
    robustness = {"reference": "rdf.extxyz", "figures": "drawn/sn2"}
    base = {**BASE, "evaluate": {"retention": "kept/ret.extxyz"}, "robustness": robustness}
    here = project(root / "here", runs(root, base=base, metrics=["rss"])[0], ())
    for name in (*names, "data/raw/salt.extxyz"):
        assert (here / name).read_bytes() == (root / name).read_bytes(), name
    for name in ("../ret.extxyz", "runs/ret.extxyz"):
        with pytest.raises(RetemperError, match=f"cannot read '{name}'"):
            runs(root, base={**BASE, "evaluate": {"retention": name}})
    runs(root, base={**BASE, "evaluate": {"retention": str(root / "kept/ret.extxyz")}})


# ------------------------------------------------------------------ table and report


def test_table_has_a_row_for_every_run(root: Path) -> None:
    """Finished, failed with its reason, waiting; numbers as the results have them; written and read back the same."""
    made = study(
        root,
        metrics=["rss"],
        designs={"all": {"axes": {"strategy": ["naive", "replay"], "training.lr": ["own", "x10"]}}},
    )
    found = runs(
        root,
        metrics=["rss"],
        designs={"all": {"axes": {"strategy": ["naive", "replay"], "training.lr": ["own", "x10"]}}},
    )
    write_result(found[0], 61.23456789)
    path = root / RESULTS / f"{found[1].key}.json"
    path.write_text('{"failed": "the loss is not finite, in epoch 2", "cpu_seconds": 3.5}')
    content = table.make(made, found)
    assert list(content["state"]) == ["finished", "failed", "waiting", "waiting"]
    first = content.iloc[0]
    assert (first["target_force_rmse"], first["forgetting_ratio"], first["rss"], first["rss_n"]) == (61.2346, 2, 25, 48)
    assert (first["e0_error"], first["e0_open"], first["foundation_target_force_rmse"]) == (12.5, "Na Cl", 400)
    assert list(content["value of training.lr"]) == pytest.approx([1e-3, 1e-2, 1e-4, 1e-3])
    assert content.iloc[1]["reason"] == "the loss is not finite, in epoch 2" and np.isnan(content.iloc[1]["rss"])
    table.write(content, root / "table.csv")
    again = table.read(root / "table.csv")
    pd.testing.assert_frame_equal(again, content, check_dtype=False)
    assert table.axes_of(again) == [*table.AXES, "training.lr"]


def test_null_is_a_level(root: Path) -> None:
    """Without a limit of the gradients is another level than with the strategy's own, in the file too."""
    designs = {"all": {"axes": {"training.clip_grad": ["own", None]}}}
    made, found = study(root, designs=designs), runs(root, designs=designs)
    for one in found:
        write_result(one)
    table.write(table.make(made, found), root / "table.csv")
    again = table.read(root / "table.csv")
    assert (
        list(again["training.clip_grad"]) == list(table.finished_rows(again)["training.clip_grad"]) == ["own", "null"]
    )
    assert again["value of training.clip_grad"].isna().tolist() == [False, True]
    central, _ = report.central_rows(again, study(root, centre={**CENTRE, "training.clip_grad": None}, designs=designs))
    assert list(central["training.clip_grad"]) == ["null"]


def test_report_is_made_from_what_is_there(root: Path) -> None:
    """Claims, table by strategy, failures and figures, for a study half done; the same twice."""
    designs = {"all": {"axes": {"strategy": ["naive", "replay"], "size": [4, 8], "seed": [1, 2]}}}
    made, found = study(root, designs=designs), runs(root, designs=designs)
    report.write(made, found, root)
    assert "8 runs: 8 waiting" in (root / "studies/some/report.md").read_text()
    for number, one in enumerate(found[:-1]):
        write_result(one, 50.0 + number, structures={"train": one.levels["size"]})
    (root / RESULTS / f"{found[-1].key}.json").write_text('{"failed": "out of memory", "cpu_seconds": 1.0}')
    report.write(made, found, root)
    text = (root / "studies/some/report.md").read_text()
    assert "7 finished" in text and "| out of memory |" in text and "| salt | naive | 2 | 3 | 52.5 |" in text
    assert text.count("**undecided**") + text.count("**shown**") + text.count("**refuted**") == 11
    files = {name: (root / "studies/some" / name).read_bytes() for name in ("table.csv", "report.md", "learning.png")}
    assert files["learning.png"].startswith(b"\x89PNG") and (root / "studies/some/pareto.png").is_file()
    report.write(made, found, root)
    assert {name: (root / "studies/some" / name).read_bytes() for name in files} == files


def test_finished_rows_outlive_their_results(root: Path) -> None:
    """A clone has the table and no results: a report there leaves the finished rows as they are, to the byte."""
    axes = {"strategy": ["naive", "replay"], "seed": [1, 2], "training.clip_grad": ["own", None]}
    made, found = (make(root, metrics=["rss"], designs={"all": {"axes": axes}}) for make in (study, runs))
    for number, one in enumerate(found[1:-2]):
        write_result(one, 50 + number / 7, e0s={"error": 1 / 3, "rank": 3, "elements": 4, "open": []})
    (root / RESULTS / f"{found[-1].key}.json").write_text('{"failed": "out of memory", "cpu_seconds": 1.0}')
    report.write(made, found, root)
    before = (root / "studies/some/table.csv").read_bytes()
    for one in found[1:-2]:
        (root / RESULTS / f"{one.key}.json").unlink()
    report.write(made, found, root)
    assert (root / "studies/some/table.csv").read_bytes() == before
    (root / RESULTS / f"{found[-1].key}.json").unlink()
    write_result(found[1], 70.0)
    content = table.make(made, found)
    assert list(content["state"]) == ["waiting", *5 * ["finished"], "waiting", "waiting"]
    assert list(content["target_force_rmse"][1:3]) == [70.0, 50.1429]
    changed = runs(root, metrics=["rss"], designs={"all": {"axes": axes}}, base={**BASE, "e0s": {"max_error": 1.0}})
    assert set(table.make(made, changed)["state"]) == {"waiting"}


def test_a_table_of_other_settings_is_not_lost(root: Path) -> None:
    """Settings or versions changed since: no run of the study is in the table, which is shown as it is, named so."""
    designs = {"all": {"axes": {"strategy": ["naive", "replay"], "seed": [1, 2]}}}
    made, found = (make(root, designs=designs) for make in (study, runs))
    for one in found:
        write_result(one)
    report.write(made, found, root)
    before = (root / "studies/some/table.csv").read_bytes()
    for one in found:
        (root / RESULTS / f"{one.key}.json").unlink()
    changed = runs(root, designs=designs, base={**BASE, "e0s": {"max_error": 1.0}})
    report.write(made, changed, root)
    text = (root / "studies/some/report.md").read_text()
    assert (root / "studies/some/table.csv").read_bytes() == before
    assert "4 runs: 4 finished" in text and "other settings or versions" in text


def test_reasons_do_not_depend_on_the_place(tmp_path: Path) -> None:
    error = RetemperError(f"{tmp_path}/data/x is empty.", fix="fill it")
    assert reason_of(error, tmp_path) == "data/x is empty.   to fix:   fill it"
    assert reason_of(ValueError("no"), tmp_path) == "ValueError: no"


# ------------------------------------------------------------------ from end to end


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "retemper", "study", *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    clean = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**clean, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def results(root: Path) -> int:
    return len(list((root / RESULTS).glob("*.json")))


def killed(root: Path, when: Callable[[], bool]) -> None:
    """Start the study and kill -9 the driver when `when` says so; what it had started must end by itself."""
    with (root / "study.log").open("a") as log:
        process = subprocess.Popen(command("studies/some.yaml"), cwd=root, env=environment(), stdout=log, stderr=log)
        end = time.monotonic() + 300
        while not when():
            assert process.poll() is None, (root / "study.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        family = [
            one for one in psutil.Process(process.pid).children(recursive=True) if not one.name().endswith("Agent")
        ]
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def compared(root: Path) -> pd.DataFrame:
    """The table without the times."""
    return table.read(root / "studies/some/table.csv").drop(columns="cpu_seconds")


@pytest.mark.slow
def test_killed_and_resumed(files: dict[str, Any], tmp_path: Path) -> None:
    """Killed twice, a study gives the table of one that was left alone; a diverging run is a row; MLflow has all."""
    frames = [a for a in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)][::6]
    write_frames(tmp_path / "frames.extxyz", frames)
    pool, retention = files["folder"] / "replay-train.extxyz", files["folder"] / "replay-valid.extxyz"
    root = make_project(tmp_path / "one", files["model"], tmp_path / "frames.extxyz", pool, retention)
    designs = {
        "all": {"axes": {"strategy": ["naive", "replay"], "seed": [1, 2]}},
        "rates": {"axes": {"training.lr": [1e30]}},
        "broken": {"axes": {"system": ["broken"], "seed": [1, 2]}},
    }
    write_frames(root / "data/raw/broken.extxyz", frames[:1])
    system = (root / "systems/salt.yaml").read_text().replace("salt", "broken")
    (root / "systems/broken.yaml").write_text(system)
    study(root, designs=designs, metrics=["short_range"])
    other = shutil.copytree(root, tmp_path / "other")
    done = subprocess.run(command("studies/some.yaml"), cwd=other, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "some: 3 failed, 4 finished" in done.stdout and "7 runs (4 of all, 2 of broken, 1 of rates), 0" in done.stdout
    )
    killed(root, lambda: any((root / ".cache/training").glob("*/state.last")))
    assert results(root) <= 2  # the two that cannot be
    assert not any((root / "studies/some").glob("table.csv"))
    killed(root, lambda: results(root) >= 4)  # and two more
    at_least = results(root)
    done = subprocess.run(command("studies/some.yaml"), cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{at_least} are there, {7 - at_least} to run" in done.stdout
    pd.testing.assert_frame_equal(compared(root), compared(other))
    rows = table.read(root / "studies/some/table.csv")
    assert all(rows.loc[rows["system"] == "broken", "reason"].str.startswith("dataset: "))
    rows = table.finished_rows(rows)
    assert len(rows) == 4 and (rows["short_range_n"] > 5).all() and (rows["forgetting_ratio"] > 0).all()
    again = subprocess.run(command("studies/some.yaml"), cwd=root, env=environment(), capture_output=True, text=True)
    assert "7 are there, 0 to run" in again.stdout
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    kept = client.search_runs([client.get_experiment_by_name("study-some").experiment_id])
    assert len(kept) == 7 and {one.info.status for one in kept} == {"FINISHED", "FAILED"}
    tags = {one.data.tags["retemper.key"]: one.data.tags for one in kept}
    for _, row in rows.iterrows():
        assert tags[row["run"]]["axis.strategy"] == row["strategy"] and tags[row["run"]]["axis.seed"] == row["seed"]
    assert yaml.safe_load((root / "studies/some.yaml").read_text())["designs"] == designs
