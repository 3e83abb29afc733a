"""Random structure search: random cells or clusters of the elements, and what the model relaxes them into."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms
from pydantic import Field

from retemper.active.explored import Context, Explored, descend
from retemper.config.settings import Section
from retemper.core.errors import RetemperError
from retemper.data.charge import in_words, state_of
from retemper.models.evaluators import Evaluator
from retemper.simulation import relaxation
from retemper.simulation.engine import Failure, Task
from retemper.simulation.random_structures import compositions, random_structures
from retemper.simulation.relaxation import Minimum


class Options(Section):
    compositions: int = Field(10, ge=1)  # of one to three elements, 4 to 10 atoms
    steps: int = Field(60, ge=1)  # of relaxation
    fmax: float = Field(0.1, gt=0)  # eV/A
    pressures: list[float] = Field([0.1, 20.0], min_length=1)  # GPa, in turn; clusters have none
    periodic: bool | None = None  # null: cells where the data have cells, clusters where they have none


def explore(context: Context, options: Options) -> Explored:
    """Every random structure and its relaxed form, a path each; a search that fails gives its start alone.

    Raises
    ------
    RetemperError
        Data with charges or unpaired electrons: nobody knows those of a random composition.
    """
    for start in context.starts:
        if state_of(start).special:
            raise RetemperError(
                "The explorer rss makes neutral structures of unknown spin.",
                expected="data without charges and multiplicities above 1",
                got=f"{in_words(start)} of {start.get_chemical_formula()}",
                fix="take rss out of acquire.explorers; the others keep the charge and spin of their start",
            )
    periodic = options.periodic
    if periodic is None:
        periodic = any(start.pbc.all() for start in context.starts)
    sampled = compositions(context.elements, options.compositions, context.seed)
    per_composition = -(-context.number // (2 * len(sampled)))
    tasks, groups = [], []
    for k, composition in enumerate(sampled):
        structures = random_structures(composition, per_composition, context.seed)
        if not periodic:
            structures = [Atoms(atoms.numbers, atoms.positions) for atoms in structures]
        pressure = options.pressures[k % len(options.pressures)] if periodic else 0.0
        arguments = {"starts": structures, "pressure": pressure, "steps": options.steps, "fmax": options.fmax}
        formula = structures[0].get_chemical_formula()
        label = f"exploring by random search, {formula}"
        tasks.append(Task(quench, context.subject, arguments, label, options.steps * sum(map(len, structures))))
        groups.append((f"random search {formula}", structures))
    explored = Explored()
    for result, (group, structures) in zip(context.run(tasks), groups, strict=True):
        if isinstance(result, Failure):
            explored.notes.append(f"{group}: {result.reason}")
            result = [None] * len(structures)
        for k, (start, relaxed) in enumerate(zip(structures, result, strict=True)):
            origin = Atoms(info={"group": group})
            path = f"rss-{start.get_chemical_formula()}-{k:03d}"
            explored.add(descend(origin, start, "rss", path, stage="random"))
            if relaxed is not None and not relaxed.reason:
                end = relaxed.atoms(start.pbc)
                explored.add(descend(origin, end, "rss", f"{path}-relaxed", stage="relaxed"))
            elif relaxed is not None:
                explored.notes.append(f"{path}: {relaxed.reason}")
    return explored


def quench(evaluator: Evaluator, starts: Sequence[Atoms], *, pressure: float, steps: int, fmax: float) -> list[Minimum]:
    """Each of `starts` relaxed."""
    relaxed = relaxation.relax(evaluator, starts, fmax=fmax, steps=steps, pressure=pressure)
    return [Minimum.of(structure) for structure in relaxed]
