"""Processes that label: each structure has its time, and what a process does wrong costs that structure alone.

A process serves many structures. One that overruns its time is killed with all it started, and
replaced; so is one that died.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from ase import Atoms

from retemper.active import plugins
from retemper.config.settings import Plugin
from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.data.charge import State, state_of

POLL = 0.5  # s between looks at the clock


@dataclass(frozen=True)
class Job:
    """One structure for the oracle."""

    key: str
    atoms: Atoms
    oracle: Plugin
    folder: str  # of its own, for what the oracle writes; goes with a success


@dataclass(frozen=True)
class Answer:
    """What came of a job."""

    kind: Literal["done", "error", "refused", "timeout", "died"]
    label: dict[str, Any] | None  # energy (eV), forces [n, 3] (eV/A), stress [3, 3] (eV/A^3) or None
    reason: str
    seconds: float


def compute(job: Job) -> Answer:
    """One label in this process; what the oracle raises becomes the reason."""
    start = time.monotonic()
    folder = Path(job.folder)

    def answer(kind: Literal["done", "error", "refused"], label: dict[str, Any] | None, reason: str) -> Answer:
        return Answer(kind, label, reason, time.monotonic() - start)

    try:
        module, options = plugins.load("oracles", job.oracle)
        folder.mkdir(parents=True, exist_ok=True)
        state = state_of(job.atoms)
        label = _label(module.calculator(options, job.atoms, state, folder), job.atoms, state)
    except RetemperError as error:
        return answer("refused", None, str(error))
    except Exception as error:  # a foreign calculator raises anything; its failure is a result
        return answer("error", None, f"{type(error).__name__}: {str(error).strip()[:300]}")
    shutil.rmtree(folder, ignore_errors=True)
    return answer("done", label, "")


def _label(calculator: Any, atoms: Atoms, state: State) -> dict[str, Any]:
    work = atoms.copy()
    work.info = {"charge": state.charge, "spin": state.multiplicity}  # for calculators that read them there
    work.calc = calculator
    try:
        energy, forces = float(work.get_potential_energy()), np.array(work.get_forces(), dtype=float)
        stress = None
        if atoms.pbc.all() and "stress" in calculator.implemented_properties:
            stress = np.array(work.get_stress(voigt=False), dtype=float)
        if getattr(calculator, "converged", True) is False:
            raise ValueError("the electronic structure did not converge")
    finally:
        close = getattr(calculator, "close", None)
        if close is not None:
            close()
    if not (np.isfinite(energy) and np.isfinite(forces).all() and (stress is None or np.isfinite(stress).all())):
        raise ValueError("energy, forces or stress are not finite")
    return {"energy": energy, "forces": forces, "stress": stress}


# ------------------------------------------------------------------ processes


class Worker(Protocol):
    """A place where one job at a time is computed."""

    def submit(self, job: Job) -> None: ...

    def answer(self) -> Answer | None:
        """What came of the job; `None` while it runs."""

    def kill(self) -> None: ...


class Process:
    """A worker on this machine."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def submit(self, job: Job) -> None:
        """Start a job."""
        self.started = time.monotonic()
        self.pipe.send(job)

    def answer(self) -> Answer | None:
        """What came of it; a process that died says so."""
        try:
            if self.pipe.poll():
                found: Answer = self.pipe.recv()
                return found
        except (EOFError, OSError):
            self.process.join(1.0)
            reason = f"the process that computed it died (exit code {self.process.exitcode})"
            return Answer("died", None, reason, time.monotonic() - self.started)
        return None

    def kill(self) -> None:
        """End the process and all it started."""
        pid = self.process.pid
        if pid is not None and self.process.is_alive():
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Any) -> None:
    """Work off jobs until the pipe is closed."""
    os.setpgid(0, 0)
    processes.die_with_parent(group=True)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(compute(job))


def _wait(workers: Sequence[Worker]) -> None:
    connection.wait([worker.pipe for worker in workers if isinstance(worker, Process)], POLL)


def run(
    queue: deque[Job], count: int | None, timeout: float, started: Callable[[Job], None]
) -> Iterator[tuple[Job, Answer]]:
    """Work off `queue` with `count` processes, by default one a core; yields answers as they come.

    Jobs may be added meanwhile. `timeout` is in seconds a job; `started` is called when a job is given to a worker.
    """
    processes.prepare()
    yield from work_off(queue, count or processes.cores(), timeout, started, Process, _wait)


def work_off(
    queue: deque[Job],
    count: int,
    timeout: float,
    started: Callable[[Job], None],
    make: Callable[[], Worker],
    wait: Callable[[Sequence[Worker]], None],
) -> Iterator[tuple[Job, Answer]]:
    """The same with workers that `make` gives, of which `wait` waits for one."""
    busy: dict[Worker, tuple[Job, float]] = {}
    idle: list[Worker] = []
    try:
        while queue or busy:
            while queue and len(busy) < count:
                worker = idle.pop() if idle else make()
                job = queue.popleft()
                started(job)
                worker.submit(job)
                busy[worker] = (job, time.monotonic())
            wait(list(busy))
            for worker, (job, since) in list(busy.items()):
                answer = worker.answer()
                if answer is None and time.monotonic() - since > timeout:
                    answer = Answer("timeout", None, f"more than {timeout:g} s", timeout)
                if answer is None:
                    continue
                del busy[worker]
                if answer.kind in ("timeout", "died"):
                    worker.kill()
                else:
                    idle.append(worker)
                yield job, answer
    finally:
        for worker in [*busy, *idle]:
            worker.kill()
