"""The dynamics that several metrics look at: planned alike, so computed once."""

from __future__ import annotations

from typing import Any

from retemper.evaluation.robustness.context import Context, starts
from retemper.models.evaluators import Subject
from retemper.simulation.dynamics import trajectory
from retemper.simulation.engine import Task

SIZES: dict[str, dict[str, Any]] = {
    "quick": {"replicas": 2, "steps": 500, "stride": 10},
    "standard": {"replicas": 4, "steps": 3000, "stride": 20},
    "thorough": {"replicas": 10, "steps": 250_000, "stride": 100},
}
RAMP = (50.0, 800.0)  # K (arXiv:2606.12704)
LIGHT, HEAVY = 0.5, 1.0  # fs: time step with and without hydrogen


def ensemble_tasks(context: Context) -> list[Task]:
    """NVT replicas, ramps, and NPT for periodic structures: each label begins with the ensemble and a comma.

    Every replica has a start of its own as long as there are enough: two that begin alike are hardly two.
    """
    number = SIZES[context.level]["replicas"]
    frames = starts(context.of_known_elements(context.frames), 3 * number, context.seed)
    tasks = nvt_tasks(context, context.subject)
    for k, atoms in enumerate(frames[number : 2 * number]):
        ramp = {"ensemble": "nvt", "temperature": RAMP[0], "final": RAMP[1]}
        tasks.append(_task("ramp", context, context.subject, atoms, k, ramp))
    for k, atoms in enumerate(frames[2 * number :]):
        if atoms.pbc.all():
            npt = {"ensemble": "npt", "temperature": context.temperature, "pressure": 1e-4}
            tasks.append(_task("npt", context, context.subject, atoms, k, npt))
    return tasks


def nvt_tasks(context: Context, subject: Subject) -> list[Task]:
    """Replicas at constant temperature, with the model or with the oracle."""
    number = SIZES[context.level]["replicas"]
    frames = starts(context.of_known_elements(context.frames), 3 * number, context.seed)[:number]
    nvt = {"ensemble": "nvt", "temperature": context.temperature}
    return [_task("nvt", context, subject, atoms, k, nvt) for k, atoms in enumerate(frames)]


def _task(kind: str, context: Context, subject: Subject, atoms: Any, k: int, how: dict[str, Any]) -> Task:
    size = SIZES[context.level]
    timestep = LIGHT if 1 in atoms.numbers else HEAVY
    arguments = {"start": atoms, "steps": size["steps"], "timestep": timestep, "stride": size["stride"], **how}
    label = f"{kind}, {atoms.symbols}, replica {k}"
    return Task(trajectory, subject, {**arguments, "seed": context.seed + k}, label, float(size["steps"] * len(atoms)))
