"""The executor: results, errors, time, kills and deaths; what a job started ends with it, whoever is killed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from executor_jobs import die_once, fail, fail_oddly, family, numbers, say

from retemper.core.errors import RetemperError
from retemper.core.executor import DiedError, Executor, Job, OverranError


def ended(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether all of them are gone, or soon."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        if all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in alive):
            return True
        time.sleep(0.1)
    return False


def run(pool: Executor, job: Job) -> Job:
    pool.submit(job)
    (found,) = pool.finished()
    assert found is job
    return found


def test_what_comes_of_jobs(tmp_path: Path) -> None:
    """One process serves all: values, progress in order, errors as they are raised, and what pickle cannot carry."""
    rows: list[int] = []
    with Executor(1) as pool:
        pid = run(pool, Job(os.getpid)).result()
        assert pid != os.getpid()
        assert run(pool, Job(say, (3,), progress=rows.append)).result() == 3 and rows == [0, 1, 2]
        with pytest.raises(RetemperError, match="mend it") as raised:
            run(pool, Job(fail)).result()
        assert raised.value.fix == "mend it" and "in fail" in "".join(raised.value.__notes__)
        with pytest.raises(RuntimeError, match="OddError: no"):
            run(pool, Job(fail_oddly)).result()
        assert isinstance(run(pool, Job(eval, ("lambda: 0",))).error, pickle.PicklingError)
        assert run(pool, Job(os.getpid)).result() == pid
    assert ended([pid])


def test_a_job_that_overruns_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """Children in its group and one with a session of its own; the next job has a new process."""
    note = tmp_path / "note"
    with Executor(1) as pool:
        job = run(pool, Job(family, (str(note),), timeout=1.0))
        assert isinstance(job.error, OverranError) and str(job.error) == "more than 1 s"
        pids = numbers(note, 3)
        assert ended(pids, 1.0)
        assert run(pool, Job(os.getpid)).result() not in pids


def test_a_process_that_dies_costs_its_job_alone(tmp_path: Path) -> None:
    with Executor(2) as pool:
        jobs = [Job(die_once, (str(tmp_path / f"{k}"),), retries=k) for k in range(2)]
        jobs += [Job(time.sleep, (0.5,)) for _ in range(2)]
        for job in jobs:
            pool.submit(job)
        assert len(list(pool.finished())) == 4
    assert isinstance(jobs[0].error, DiedError) and "exit code 7" in str(jobs[0].error)
    assert jobs[1].result() == "alive" and jobs[2].error is None and jobs[3].error is None


def test_leaving_early_ends_what_runs(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with pytest.raises(ZeroDivisionError), Executor(2) as pool:
        pool.submit(Job(family, (str(note),)))
        pool.submit(Job(numbers, (note, 3)))
        for _ in pool.finished():
            raise ZeroDivisionError
    assert ended(numbers(note, 3), 1.0)


@pytest.mark.hostile("kills")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_is_killed_leaves_no_orphans(number: signal.Signals, tmp_path: Path) -> None:
    note = tmp_path / "note"
    code = f"""
        import sys; sys.path[:0] = [{str(ROOT / "platform")!r}, {str(ROOT / "tests")!r}]
        from executor_jobs import family
        from retemper.core.executor import Executor, Job
        with Executor(1) as pool:
            pool.submit(Job(family, ({str(note)!r},)))
            list(pool.finished())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    pids = numbers(note, 3)
    parent.send_signal(number)
    parent.wait(timeout=20)
    assert ended(pids[:2])  # and without a chance to look for it, not what left the group
    os.kill(pids[2], signal.SIGKILL) if psutil.pid_exists(pids[2]) else None


@pytest.mark.slow
def test_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Ray of this machine: the same, through actors."""
    paths = [str(ROOT / "platform"), str(ROOT / "tests")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    rows: list[int] = []
    with Executor(1, cluster=True) as pool:
        assert run(pool, Job(say, (3,), progress=rows.append)).result() == 3 and rows == [0, 1, 2]
        with pytest.raises(RetemperError, match="mend it"):
            run(pool, Job(fail)).result()
        assert run(pool, Job(die_once, (str(tmp_path / "mark"),), retries=1)).result() == "alive"
        note = tmp_path / "note"
        assert isinstance(run(pool, Job(family, (str(note),), timeout=2.0)).error, OverranError)
        assert ended(numbers(note, 3))
