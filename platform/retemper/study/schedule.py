"""Work off jobs on Ray: one thread and one core each, those that the longest way is left after first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retemper.study.jobs import Job, perform
from retemper.study.places import spent_on

RETRIES = 2  # of a job whose process was killed; it goes on where it was
DIED = "its process was killed, or ran out of memory"

Ended = Callable[[Job, dict[str, Any]], None]


def priorities(jobs: Sequence[Job], cost: Mapping[str, float]) -> dict[str, float]:
    """By name: a job's cost and that of the longest chain of jobs that wait for it."""
    after: dict[str, float] = {job.name: 0.0 for job in jobs}
    found: dict[str, float] = {}
    for job in reversed(jobs):  # stages stand before what needs them
        found[job.name] = cost[job.name] + after[job.name]
        for need in job.needs:
            after[need] = max(after.get(need, 0.0), found[job.name])
    return found


def work_off(
    jobs: Sequence[Job],
    cost: Mapping[str, float],
    gpus: float,
    may_start: Callable[[Job], bool],
    ended: Ended,
) -> None:
    """Run `jobs` on the Ray that this process is connected to, as many at a time as there are cores (or GPUs).

    Parameters
    ----------
    jobs
        Those that are not done, stages before what needs them.
    cost
        Expected seconds by name.
    gpus
        Share of a GPU for each job.
    may_start
        Asked before a job is started; one that may not start is left out, and so is what needs it.
    ended
        Called with what `jobs.perform` returned. What needs a job that failed is not started: it ends with the
        same reason, and as one whose process died where that was the reason.
    """
    import ray

    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(perform)
    places = _places(gpus)
    order = priorities(jobs, cost)
    waiting = {job.name: job for job in sorted(jobs, key=lambda job: -order[job.name])}
    running: dict[Any, Job] = {}
    lost: dict[str, dict[str, Any]] = {}  # by name: how a job failed; nothing of one that was left out
    tries: dict[str, int] = {}
    while waiting or running:
        for name, job in list(waiting.items()):
            need = next((need for need in job.needs if need in lost), None)
            if need is not None:
                del waiting[name]
                lost[name] = why = lost[need]
                if why:
                    reason = f"{need.partition('/')[0]}: {why['failed']}"
                    ended(job, {**why, "failed": reason, "cpu_seconds": spent_on(job.folder)})
            elif len(running) < places and not {*waiting, *(one.name for one in running.values())} & set(job.needs):
                del waiting[name]
                if may_start(job):
                    running[task.remote(job)] = job
                else:
                    lost[name] = {}
        if not running:
            break
        (ready,), _ = ray.wait(list(running), num_returns=1)
        job = running.pop(ready)
        try:
            found = ray.get(ready)
        except ray.exceptions.RayError as error:  # a worker or a node died
            tries[job.name] = tries.get(job.name, 0) + 1
            if tries[job.name] <= RETRIES:
                waiting = {job.name: job, **waiting}
                continue
            reason = f"{DIED} ({type(error).__name__})"
            found = {"failed": reason, "cpu_seconds": spent_on(job.folder), "died": True}
        if "failed" in found:
            lost[job.name] = found
        ended(job, found)


def _places(gpus: float) -> int:
    import ray

    held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if gpus:
        return max(1, int(held.get("GPU", 0.0) / gpus))
    return max(1, int(held.get("CPU", 1.0)))
