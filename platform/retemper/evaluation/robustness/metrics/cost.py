"""What a step costs: CPU time per atom for energy and forces, and memory of the process."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from retemper.evaluation.robustness.context import Computed, Context, Plan, starts
from retemper.evaluation.robustness.result import Info, Result, not_measured
from retemper.evaluation.robustness.statistics import bootstrap
from retemper.models.evaluators import Evaluator
from retemper.simulation.engine import Failure, Task
from retemper.simulation.random_structures import compositions, packing

INFO = Info(
    title="Cost: CPU time for energy and forces, per atom and step, one thread",
    unit="µs/atom",
    direction="lower",
    good=100.0,
    bad=10_000.0,
    cost="some repeated steps on one structure, alone in a process of its own",
    reference="of this machine and back end: compare only what ran on the same one",
)
SIZES: dict[str, dict[str, float]] = {
    "quick": {"seconds": 1.0},
    "standard": {"seconds": 5.0},
    "thorough": {"seconds": 20.0},
}
FEWEST = 5
USES = ("level", "seed", "machine")


@dataclass(frozen=True)
class Timing:
    """What single steps cost."""

    seconds: np.ndarray  # [n_steps] s of CPU time
    memory: float  # MB, the largest of the process


def timing(evaluator: Evaluator, atoms: Atoms, seconds: float) -> Timing:
    """CPU seconds of single steps on slightly moved atoms, and the largest memory of this process in MB."""
    rng = np.random.default_rng(0)
    evaluator([atoms])  # what is done once
    durations: list[float] = []
    while sum(durations) < seconds or len(durations) < FEWEST:
        copy = atoms.copy()
        copy.positions += rng.normal(0, 0.01, copy.positions.shape)
        start = time.process_time()
        reason = evaluator([copy]).reasons[0]
        durations.append(time.process_time() - start)
        if reason:
            raise RuntimeError(reason)
    import resource

    return Timing(np.array(durations), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _structure(context: Context) -> Atoms:
    frames = starts(context.of_known_elements(context.frames), 1, context.seed)
    if frames:
        return frames[0]
    composition = compositions(context.elements, 1, context.seed)[0]
    atoms: Atoms = packing(composition, np.random.default_rng(0)).repeat(2)
    return atoms


def plan(context: Context) -> Plan:
    """One task, with nothing beside it; never kept."""
    atoms = _structure(context)
    return {"steps": Task(timing, context.subject, {"atoms": atoms, **SIZES[context.level]}, "cost", alone=True)}


def measure(context: Context, results: Computed) -> Result:
    """Median with its bootstrap interval."""
    result = results["steps"]
    if isinstance(result, Failure):
        return not_measured(f"no step could be computed: {result.reason}")
    atoms = _structure(context)
    per_step = 1e6 * result.seconds / len(atoms)
    value, low, high = bootstrap(per_step, np.median)
    details = {
        "atoms": len(atoms),
        "formula": atoms.get_chemical_formula(),
        "memory_mb": result.memory,
        "backend": context.subject.backend,
    }
    return Result(value, low, high, len(per_step), len(per_step), "steps", details)
