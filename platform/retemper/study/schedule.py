"""Work off jobs: one thread and one core each, those that the longest way is left after first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from retemper.core import executor
from retemper.study.jobs import Job, Outcome, perform
from retemper.study.places import spent_on

RETRIES = 2  # of a job whose process was killed; it goes on where it was
DIED = "its process was killed, or ran out of memory"

OnEnd = Callable[[Job, Outcome], None]


def priorities(jobs: Sequence[Job], cost: Mapping[str, float]) -> dict[str, float]:
    """By name: a job's cost and that of the longest chain of jobs that wait for it."""
    following: dict[str, float] = {job.name: 0.0 for job in jobs}
    by_name: dict[str, float] = {}
    for job in reversed(jobs):  # stages stand before what needs them
        by_name[job.name] = cost[job.name] + following[job.name]
        for need in job.needs:
            following[need] = max(following.get(need, 0.0), by_name[job.name])
    return by_name


def work_off(
    jobs: Sequence[Job],
    cost: Mapping[str, float],
    pool: executor.Executor,
    may_start: Callable[[Job], bool],
    on_end: OnEnd,
) -> None:
    """Run `jobs` in `pool`.

    Parameters
    ----------
    jobs
        Those that are not done, stages before what needs them.
    cost
        Expected seconds by name.
    pool
        Where they run, as many at a time as it has places.
    may_start
        Asked before a job is started; one that may not start is left out, and so is what needs it.
    on_end
        Called with what `jobs.perform` returned. What needs a job that failed is not started: it ends with the
        same reason, and as one whose process died where that was the reason.
    """
    order = priorities(jobs, cost)
    waiting = {job.name: job for job in sorted(jobs, key=lambda job: -order[job.name])}
    running: dict[executor.Job, Job] = {}
    failures: dict[str, Outcome | None] = {}  # by name: how a job failed; None: it was left out

    def start() -> None:
        for name, job in list(waiting.items()):
            need = next((need for need in job.needs if need in failures), None)
            if need is not None:
                del waiting[name]
                failures[name] = cause = failures[need]
                if cause:
                    reason = f"{need.partition('/')[0]}: {cause.failed}"
                    on_end(job, Outcome(spent_on(job.folder), reason, cause.died))
            elif pool.free and not {*waiting, *(job.name for job in running.values())} & set(job.needs):
                del waiting[name]
                if may_start(job):
                    running[pool.submit(executor.Job(perform, (job,), retries=RETRIES))] = job
                else:
                    failures[name] = None

    start()
    for call in pool.finished():
        job = running.pop(call)
        outcome: Outcome = call.value
        if call.error is not None:
            reason = f"{DIED} ({type(call.error).__name__}: {call.error})"
            outcome = Outcome(spent_on(job.folder), reason, died=True)
        if outcome.failed is not None:
            failures[job.name] = outcome
        on_end(job, outcome)
        start()
