"""Workers on a Ray cluster: the oracle's program must be there, and the project's folder if the oracle reads it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from retemper.active.workers import POLL, Answer, Job, Worker, compute, work_off
from retemper.core import processes, ray_capacity, ray_session


def run(
    queue: deque[Job], count: int | None, timeout: float, started: Callable[[Job], None]
) -> Iterator[tuple[Job, Answer]]:
    """`workers.run` on the cluster that ``RAY_ADDRESS`` names, or on a local one: at most one structure a CPU."""
    if not queue:
        return
    with ray_session.session("cpu", processes.cores()) as cluster:
        import ray

        ray_capacity.require({"CPU": 1}, cluster=cluster)

        held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus = max(1, int(held.get("CPU", 1.0)))
        yield from work_off(queue, min(count or cpus, cpus), timeout, started, Actor, _wait)


class Actor:
    """A worker that is a Ray actor with one CPU."""

    def __init__(self) -> None:
        import ray

        self.actor: Any = ray.remote(num_cpus=1, max_restarts=0)(Labeller).remote()

    def submit(self, job: Job) -> None:
        """Start a job."""
        self.started = time.monotonic()
        self.reference = self.actor.compute.remote(job)

    def answer(self) -> Answer | None:
        """What came of it; an actor or a node that died says so."""
        import ray

        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            found: Answer = ray.get(self.reference)
            return found
        except ray.exceptions.RayActorError as error:
            return Answer("died", None, f"its worker died: {str(error)[:200]}", time.monotonic() - self.started)

    def kill(self) -> None:
        """End the actor's process."""
        import ray

        ray.kill(self.actor)


class Labeller:
    """What runs on the cluster."""

    def compute(self, job: Job) -> Answer:
        """One label."""
        return compute(job)


def _wait(workers: Sequence[Worker]) -> None:
    """Until one of them has an answer, or a moment has passed."""
    import ray

    ray.wait([worker.reference for worker in workers if isinstance(worker, Actor)], timeout=POLL)
