"""Workers on a Ray cluster: the oracle's program must be there, and the project's folder if the oracle reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from retemper.active.workers import POLL, Answer, Job, Worker, compute


class Actor:
    """A worker that is a Ray actor with one CPU."""

    def __init__(self) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS", "local"), log_to_driver=False, include_dashboard=False)
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


def wait(workers: Sequence[Worker]) -> None:
    """Until one of them has an answer, or a moment has passed."""
    import ray

    ray.wait([worker.reference for worker in workers if isinstance(worker, Actor)], timeout=POLL)
