"""Molecular dynamics from several labelled structures: temperature ramps; at pressure where there is a cell."""

from __future__ import annotations

from pydantic import Field

from retemper.active.explored import Context, Explored, descend, spread
from retemper.config.settings import Section
from retemper.data.labels import reject
from retemper.simulation import dynamics
from retemper.simulation.engine import Failure, Task
from retemper.simulation.stability import first_failure


class Options(Section):
    replicas: int = Field(8, ge=1)  # each from another group of the data, as far as there are
    steps: int = Field(1000, ge=10)  # of 0.5 fs, or 1 fs without hydrogen
    temperature: float = Field(300.0, gt=0)  # K at the beginning
    final: float = Field(600.0, gt=0)  # K at the end
    pressure: float = 1e-4  # GPa; every other periodic replica is NPT


def explore(context: Context, options: Options) -> Explored:
    """Frames up to the first that is wrong; that one and the rest are unphysical."""
    tasks, starts = [], []
    stride = max(1, options.steps * options.replicas // max(1, context.number))
    for k, start in spread(context.starts, options.replicas, context.seed):
        arguments = {
            "start": start,
            "ensemble": "npt" if start.pbc.all() and k % 2 else "nvt",
            "steps": options.steps,
            "timestep": dynamics.usual_timestep(start),
            "temperature": options.temperature,
            "final": options.final,
            "pressure": options.pressure,
            "stride": stride,
            "seed": context.seed * 10_000 + k,
        }
        label = f"exploring by MD, {start.get_chemical_formula()}, replica {k}"
        tasks.append(Task(dynamics.trajectory, context.subject, arguments, label, options.steps * len(start)))
        starts.append(start)
    explored = Explored()
    for k, (run, start) in enumerate(zip(context.run(tasks), starts, strict=True)):
        name = f"md-{k:03d}"
        if isinstance(run, Failure):
            explored.notes.append(f"{name}: {run.reason}")
            continue
        last, reason = first_failure(run, bonds=False)
        for index in range(1, len(run.time)):  # the first is the start itself
            frame = dynamics.frame(run, index)
            extra = {"time_fs": frame.info["time_fs"], "temperature": round(frame.info["temperature"], 1)}
            candidate = descend(start, frame, "md", name, **extra)
            if reason and index >= last:
                explored.unphysical.append(reject(candidate, reason))
            elif not explored.add(candidate):
                break
        if reason:
            explored.notes.append(f"{name}: {reason} after {run.time[last]:.0f} fs")
    return explored
