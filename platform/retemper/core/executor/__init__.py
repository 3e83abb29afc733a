"""Functions that run side by side: in processes of this machine, or in some that Ray places on a cluster.

A place serves one job at a time and stays for further ones, which find its imports done. Its process leads a group of
its own: Ctrl-C, which a terminal sends to all, is the parent's to hear; a job that overruns its time is killed with
all it started, and so is every job when the block is left or the parent is killed. On a cluster an actor of Ray holds
such a process. Libraries lack a part of this: `concurrent.futures` and loky have no time-outs and lose all jobs with
one process, pebble kills the process alone, and none sends progress or goes to a cluster. Ray Tune runs sweeps.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retemper.core import processes
from retemper.core.executor import places
from retemper.core.executor.places import Place, report

__all__ = ["DiedError", "Executor", "Job", "OverranError", "report"]
START = 60.0  # s beyond a job's time for a new process to begin with it
DIED = "the process that computed it died"


class DiedError(Exception):
    """The process of a job ended before the job did: it was killed, ran out of memory, or crashed."""


class OverranError(Exception):
    """A job took longer than it may."""


@dataclass(eq=False)
class Job:
    """A call in another process, and after its end what came of it."""

    function: Callable[..., Any]  # of a module
    arguments: tuple[Any, ...] = ()
    timeout: float | None = None  # s
    retries: int = 0  # for a process that died
    started: Callable[[], object] | None = None  # called before it starts
    progress: Callable[[Any], object] | None = None  # called with what the function gives to `report`
    seconds: float = field(default=0.0, init=False)  # that it took
    value: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)  # as raised, or `DiedError`, `OverranError`

    def result(self) -> Any:
        """What the function returned; what it raised is raised here."""
        if self.error is not None:
            raise self.error
        return self.value

    def _give(self, place: Place) -> None:
        call = pickle.dumps((self.function, self.arguments))
        if self.started is not None:
            self.started()
        self._since, self._late = time.monotonic(), START
        place.submit(call)

    def _take(self, kind: str, content: bytes) -> None:
        """Note a message of its place."""
        try:
            message = pickle.loads(content)
        except Exception as error:  # pickle writes objects that it cannot read
            kind, message = "error", (TypeError(f"What the job gave cannot be read: {error}"), "")
        self.seconds = time.monotonic() - self._since
        if kind == "begun":
            self._since, self._late = time.monotonic(), 0.0
        elif kind == "progress" and self.progress is not None:
            self.progress(message)
        elif kind == "done":
            self.value = message
        elif kind == "error":
            self.error, origin = message
            self.error.add_note(origin)
        elif kind == "died":
            self.error = DiedError(f"{DIED} ({message})")

    def _overran(self) -> bool:
        """Whether its time is over."""
        if self.timeout is None or time.monotonic() - self._since <= self.timeout + self._late:
            return False
        self.seconds, self.error = self.timeout, OverranError(f"more than {self.timeout:g} s")
        return True


class Executor:
    """Places where jobs run, within a ``with`` block.

    Parameters
    ----------
    count
        Jobs at a time: by default one a core, or as many as the cluster has cores (GPUs); there it is never more.
    cluster
        Use the Ray that ``RAY_ADDRESS`` names, or a Ray on this machine where it names none.
    gpus
        Share of a GPU of each job; Ray hands them out.
    device
        ``cpu`` gives each process one thread.
    log
        File that takes what processes of this machine print; by default they print where this process does.

    Raises
    ------
    RetemperError
        No cluster answers, or it has not what a job needs.
    """

    def __init__(
        self,
        count: int | None = None,
        *,
        cluster: bool = False,
        gpus: float = 0.0,
        device: str = "cpu",
        log: Path | None = None,
    ):
        self.count, self.cluster, self.gpus, self.device, self.log = count or 0, cluster, gpus, device, log
        self._waiting: deque[Job] = deque()
        self._busy: dict[Place, Job] = {}
        self._idle: list[Place] = []
        self._session = contextlib.ExitStack()

    def __enter__(self) -> Executor:
        processes.prepare(self.device)
        limit = self._session.enter_context(places.join_ray(self.device, self.gpus)) if self.cluster else self.count
        self.count = min(self.count or limit, limit) or processes.cores()
        return self

    def __exit__(self, *_: object) -> None:
        for place in [*self._busy, *self._idle]:
            place.kill()
        self._session.close()

    @property
    def free(self) -> int:
        """Places for which no job was submitted."""
        return self.count - len(self._busy) - len(self._waiting)

    def submit(self, job: Job) -> Job:
        """Have `job` run when a place is free; jobs start in their order."""
        self._waiting.append(job)
        return job

    def finished(self) -> Iterator[Job]:
        """Run what was submitted; yields each job when it has ended. More may be submitted meanwhile.

        Left before its end, it kills what still runs.
        """
        try:
            while self._waiting or self._busy:
                self._fill()
                places.wait(self._busy)
                for place, job in list(self._busy.items()):
                    if self._is_over(place, job):
                        self._fill()
                        yield job
        finally:
            for place in self._busy:
                place.kill()
            self._busy.clear()
            self._waiting.clear()

    def _fill(self) -> None:
        """Give jobs to the places that are free."""
        while self._waiting and len(self._busy) < self.count:
            place = self._idle.pop() if self._idle else places.make(self.cluster, self.gpus, self.log)
            self._busy[place] = job = self._waiting.popleft()
            job._give(place)

    def _is_over(self, place: Place, job: Job) -> bool:
        """Take what a place has sent; whether its job is over and is not tried again."""
        kind = ""
        for kind, content in place.messages():
            job._take(kind, content)
        if kind not in places.LAST and not job._overran():
            return False
        del self._busy[place]
        if kind in ("done", "error"):
            self._idle.append(place)
            return True
        place.kill()
        if kind == "died" and job.retries > 0:
            job.retries, job.error = job.retries - 1, None
            self._waiting.appendleft(job)
            return False
        return True
