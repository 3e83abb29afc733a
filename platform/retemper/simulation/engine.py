"""Runs tasks over processes, keeps what they computed, and resumes after a kill.

A task is a function of an evaluator and plain arguments. Its result is stored under the hash
of the model, the code of the function's module and of the evaluators, and the arguments: analysis with another
threshold finds it there, and so does a run that goes on after a kill. What is found is checked
(`retemper.core.sealed`). On a Ray cluster the model files must be at the same paths.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from ase import Atoms

from retemper.core import executor, processes, sealed
from retemper.core.errors import RetemperError
from retemper.core.output import log, progress
from retemper.data import charge
from retemper.models.evaluators import Evaluator, Subject
from retemper.simulation import sources

CACHE = Path(".cache/robustness")
SUFFIX = ".result"  # of what is kept of a task


@dataclass(frozen=True)
class Task:
    """Something expensive to compute for one model. The same task planned twice is computed once."""

    function: Callable[..., Any]  # of a module: function(evaluator, **arguments); its annotation says what it returns
    subject: Subject
    arguments: dict[str, Any]  # numbers, text, arrays, Atoms, lists and dicts of these
    label: str
    weight: float = 1.0  # expected cost, any unit: the most expensive start first
    alone: bool = False  # a measurement of time: nothing runs beside it, and it is not kept

    @property
    def returns(self) -> Any:
        """Type of the result."""
        return get_type_hints(self.function).get("return", Any)

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


def _to_plain(result: Any) -> Any:
    """A result as lists, dicts, numbers, text and arrays."""
    if is_dataclass(result) and not isinstance(result, type):
        return {field.name: _to_plain(getattr(result, field.name)) for field in fields(result)}
    if isinstance(result, dict):
        return {key: _to_plain(value) for key, value in result.items()}
    return [_to_plain(part) for part in result] if isinstance(result, (list, tuple)) else result


def _from_plain(kind: Any, plain: Any) -> Any:
    """What `_to_plain` was made from, by its type."""
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _from_plain(kinds[name], value) for name, value in plain.items()})  # type: ignore[operator]
    if get_origin(kind) is list:
        return [_from_plain(get_args(kind)[0], part) for part in plain]
    if get_origin(kind) is dict:
        return {key: _from_plain(get_args(kind)[1], value) for key, value in plain.items()}
    return plain


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
    results: dict[str, object] = {}
    waiting: dict[str, Task] = {}
    for key, task in zip(keys, tasks, strict=True):
        if key in results or key in waiting:
            continue
        stored = None if task.alone else sealed.read(folder / f"{key}{SUFFIX}", key)
        if stored is not None:
            results[key] = _from_plain(task.returns, stored[0])
        else:
            waiting[key] = task
    ordered = sorted(waiting, key=lambda key: -waiting[key].weight)
    parallel = [key for key in ordered if not waiting[key].alone]
    start = time.monotonic()
    count = min(workers or processes.cores(), max(1, len(parallel)))
    if results and waiting:
        log.info(f"  {len(results)} of {len(results) + len(waiting)} tasks are there from before")
    with progress(len(parallel)) as say:
        for number, (key, result) in enumerate(_spread(parallel, waiting, count, ray), 1):
            results[key] = result
            if not isinstance(result, Failure):
                sealed.write(folder / f"{key}{SUFFIX}", key, [_to_plain(result)])
            seconds = time.monotonic() - start
            say(number, f"  {number}/{len(parallel)} tasks, {seconds:.0f} s; last: {waiting[key].label}")
    for key in ordered:
        if waiting[key].alone:
            results[key] = _compute_alone(waiting[key])
    return [results[key] for key in keys]


def _spread(keys: Sequence[str], tasks: dict[str, Task], workers: int, ray: bool) -> Iterator[tuple[str, Any]]:
    """Compute over processes; yields each result as it comes."""
    if workers == 1 and not ray:
        yield from ((key, compute(tasks[key])) for key in keys)
        return
    crashed = []
    with executor.Executor(cluster=True) if ray else contextlib.nullcontext(_processes(workers)) as pool:
        running = {pool.submit(executor.Job(compute, (tasks[key],), retries=int(ray))): key for key in keys}
        for job in pool.finished():
            key = running.pop(job)
            if ray or not isinstance(job.error, executor.DiedError):
                yield key, _result(job)
            else:
                crashed.append(key)
    for key in crashed:
        log.info(f"  a process died; the task that it had runs again with nothing beside it: {tasks[key].label}")
        yield key, _compute_alone(tasks[key])


@lru_cache(maxsize=1)
def _processes(count: int) -> executor.Executor:
    """They stay for the next tasks, which find imports done and models open."""
    return executor.Executor(count).__enter__()


def _compute_alone(task: Task) -> Any:
    """A task in a fresh process with nothing beside it: its time and memory are its own."""
    with executor.Executor(1) as pool:
        job = pool.submit(executor.Job(compute, (task,)))
        list(pool.finished())
    return _result(job)


def _result(job: executor.Job) -> Any:
    if isinstance(job.error, executor.DiedError):
        return Failure(f"{job.error}: a crash in the calculator, or out of memory")
    return job.result()


def require(result: Any) -> Any:
    """A result that must be there; a failure is a `RetemperError`."""
    if isinstance(result, Failure):
        raise RetemperError(f"A calculation failed: {result.reason}")
    return result
