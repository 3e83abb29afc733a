"""Runs tasks over processes, keeps what they computed, and resumes after a kill.

A task is a function of an evaluator and plain arguments. Its result is stored under the hash
of the model, the code of the function's module and of the evaluators, and the arguments: analysis with another
threshold finds it there, and so does a run that goes on after a kill. What is found is checked
(`retemper.core.sealed`). Processes are joblib's; with its Ray backend registered (`ray.util.joblib.register_ray`)
the same tasks go to a Ray cluster.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.core import processes, sealed
from retemper.core.errors import RetemperError
from retemper.data import charge
from retemper.models.evaluators import Evaluator, Subject
from retemper.simulation import sources

CACHE = Path(".cache/robustness")
SAY_EVERY = 10.0  # s between lines of progress
SUFFIX = ".result"  # of what is kept of a task


@dataclass(frozen=True)
class Task:
    """Something expensive to compute for one model. The same task planned twice is computed once."""

    function: Callable[..., Any]  # of a module; function(evaluator, **arguments) -> plain data and arrays
    subject: Subject
    arguments: dict[str, Any]  # numbers, text, arrays, Atoms, lists and dicts of these
    label: str
    weight: float = 1.0  # expected cost, any unit: the most expensive start first
    alone: bool = False  # a measurement of time: nothing runs beside it, and it is not kept

    @property
    def key(self) -> str:
        """Hash of all that decides the result."""
        total = hashlib.sha256()
        owner = inspect.getmodule(self.function)
        code = sources.fingerprint(owner.__name__) if owner else ""
        evaluators = sources.evaluators()
        for part in (self.subject.identity, self.subject.backend, self.function.__qualname__, code, evaluators):
            total.update(part.encode() + b"\0")
        feed(total, self.arguments)
        return total.hexdigest()[:24]


@dataclass(frozen=True)
class Failure:
    """A task that raised or whose process died; `reason` is a sentence."""

    reason: str


def feed(total: Any, value: Any) -> None:
    """Add `value` to a hash, canonically."""
    if isinstance(value, Atoms):
        feed(
            total,
            {
                "numbers": value.numbers,
                "positions": value.positions,
                "cell": value.cell.array,
                "pbc": value.pbc,
                "info": charge.special(value),
            },
        )
    elif isinstance(value, np.ndarray):
        total.update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in sorted(value):
            total.update(f"{key}:".encode())
            feed(total, value[key])
    elif isinstance(value, (list, tuple)):
        total.update(f"[{len(value)}".encode())
        for part in value:
            feed(total, part)
    else:
        total.update(repr(value).encode() + b",")


# ------------------------------------------------------------------ in a worker


def compute(task: Task) -> Any:
    """One task in this process; what it raises becomes a `Failure`."""
    evaluator: Evaluator
    try:
        evaluator = task.subject.open()
        return task.function(evaluator, **task.arguments)
    except MemoryError:
        return Failure("out of memory")
    except Exception as error:  # a calculator raises anything; its failure is a result
        return Failure(f"{type(error).__name__}: {str(error).strip()[:300]}")


def _work(index: int, task: Task) -> tuple[int, Any]:
    _watch_parent()
    return index, compute(task)


@lru_cache
def _watch_parent() -> None:
    processes.die_with_parent()


# ------------------------------------------------------------------ in the parent


def run(
    tasks: Sequence[Task], *, workers: int | None = None, cache: Path | None = None, ray: bool = False
) -> list[Any]:
    """Results of `tasks` in their order; a task that failed gives a `Failure`.

    Parameters
    ----------
    tasks
        What to compute. Tasks that are the same or were computed before are not computed again.
    workers
        Processes; default: one a core. One computes in this process.
    cache
        Where results are kept. Failures are not kept: they are tried again.
    ray
        Send the tasks to the Ray cluster that ``RAY_ADDRESS`` names.

    Raises
    ------
    RetemperError
        A full disk, or a result that is no plain data.
    """
    folder = (cache or CACHE) / "tasks"
    keys = [task.key for task in tasks]
    done: dict[str, Any] = {}
    waiting: dict[str, Task] = {}
    for key, task in zip(keys, tasks, strict=True):
        if key in done or key in waiting:
            continue
        stored = None if task.alone else sealed.read(folder / f"{key}{SUFFIX}", key)
        if stored is not None:
            done[key] = stored[0]
        else:
            waiting[key] = task
    ordered = sorted(waiting, key=lambda key: -waiting[key].weight)
    together = [key for key in ordered if not waiting[key].alone]
    start = said = time.monotonic()
    count = min(workers or processes.cores(), max(1, len(together)))
    if len(done) and waiting:
        print(f"  {len(done)} of {len(done) + len(waiting)} tasks are there from before", flush=True)
    for number, (key, result) in enumerate(_spread(together, waiting, count, ray), 1):
        done[key] = result
        if not isinstance(result, Failure):
            sealed.write(folder / f"{key}{SUFFIX}", key, [result])
        now = time.monotonic()
        if now - said > SAY_EVERY:
            said = now
            print(f"  {number}/{len(together)} tasks, {now - start:.0f} s; last: {waiting[key].label}", flush=True)
    for key in ordered:
        if waiting[key].alone:
            done[key] = _in_own_process(waiting[key])
    return [done[key] for key in keys]


def _spread(keys: Sequence[str], tasks: dict[str, Task], workers: int, ray: bool) -> Iterable[tuple[str, Any]]:
    """Compute over processes; yields each result as it comes."""
    if workers == 1 and not ray:
        yield from ((key, compute(tasks[key])) for key in keys)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    processes.prepare()
    left = list(keys)
    if ray:
        from retemper.simulation.ray_backend import parallel

        for index, result in parallel([delayed(_work)(i, tasks[key]) for i, key in enumerate(left)]):
            yield left[index], result
        return
    finished: set[str] = set()
    try:
        pool = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered", batch_size=1)
        for index, result in pool(delayed(_work)(i, tasks[key]) for i, key in enumerate(left)):
            finished.add(left[index])
            yield left[index], result
    except TerminatedWorkerError:
        print("  a process died; the tasks that are left run one by one", flush=True)
        for key in (key for key in left if key not in finished):
            try:
                (_, result), *_ = Parallel(n_jobs=2, backend="loky")([delayed(_work)(0, tasks[key])])
            except TerminatedWorkerError:
                result = Failure("the process that computed it died (crash in the calculator, or out of memory)")
            yield key, result


def _in_own_process(task: Task) -> Any:
    """A task in a fresh process with nothing beside it: its time and memory are its own."""
    from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    processes.prepare()
    with ProcessPoolExecutor(max_workers=1) as pool:
        try:
            return pool.submit(_work, 0, task).result()[1]
        except TerminatedWorkerError:
            return Failure("the process that computed it died (crash in the calculator, or out of memory)")


def failures(results: Iterable[Any]) -> list[str]:
    """Reasons of the tasks that failed."""
    return [result.reason for result in results if isinstance(result, Failure)]


def require(result: Any) -> Any:
    """A result that must be there; a failure is a `RetemperError`."""
    if isinstance(result, Failure):
        raise RetemperError(f"A calculation failed: {result.reason}")
    return result
