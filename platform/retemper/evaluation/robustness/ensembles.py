"""The dynamics that several metrics look at: planned alike, so computed once."""

from __future__ import annotations

from typing import NamedTuple

from ase import Atoms

from retemper.evaluation.robustness.context import Context, starts
from retemper.models.evaluators import Subject
from retemper.simulation.dynamics import trajectory, usual_timestep
from retemper.simulation.engine import Task

SIZES: dict[str, dict[str, int]] = {
    "quick": {"replicas": 2, "steps": 500, "stride": 10},
    "standard": {"replicas": 4, "steps": 3000, "stride": 20},
    "thorough": {"replicas": 10, "steps": 250_000, "stride": 100},
}
RAMP = (50.0, 800.0)  # K (arXiv:2606.12704)
ENSEMBLES = ("nvt", "ramp", "npt")


class Replica(NamedTuple):
    """One run of dynamics."""

    ensemble: str  # nvt, ramp or npt
    number: int


def replicas(context: Context) -> dict[Replica, Atoms]:
    """Starts of NVT replicas, ramps, and NPT for periodic structures.

    Every replica has a start of its own as long as there are enough: two that begin alike are hardly two.
    """
    number = SIZES[context.level]["replicas"]
    frames = iter(starts(context.of_known_elements(context.frames), 3 * number, context.seed))
    candidates = {
        Replica(kind, k): start for kind in ENSEMBLES for k, start in zip(range(number), frames, strict=False)
    }
    return {replica: start for replica, start in candidates.items() if replica.ensemble != "npt" or start.pbc.all()}


def nvt_replicas(context: Context) -> dict[Replica, Atoms]:
    """Those at constant temperature."""
    return {replica: start for replica, start in replicas(context).items() if replica.ensemble == "nvt"}


def task(context: Context, subject: Subject, replica: Replica, start: Atoms) -> Task:
    """A replica with the model or with the oracle."""
    size, seed = SIZES[context.level], context.seed + replica.number
    protocol: dict[str, dict[str, str | float]] = {
        "nvt": {"ensemble": "nvt", "temperature": context.temperature},
        "ramp": {"ensemble": "nvt", "temperature": RAMP[0], "final": RAMP[1]},
        "npt": {"ensemble": "npt", "temperature": context.temperature, "pressure": 1e-4},
    }
    arguments = {"start": start, "timestep": usual_timestep(start), "seed": seed}
    arguments |= {"steps": size["steps"], "stride": size["stride"]}
    label = f"{replica.ensemble}, {start.get_chemical_formula()}, replica {replica.number}"
    weight = float(size["steps"] * len(start))
    return Task(trajectory, subject, arguments | protocol[replica.ensemble], label, weight)
