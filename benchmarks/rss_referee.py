"""Which criteria of random structure search name real holes? Precision and recall against GFN1-xTB.

Random cells of three chemistries are relaxed by the model at 0.1 and 50 GPa, where it sees next to no force beyond the
pressure's. The referee computes the closest pair of atoms amid its surroundings, cut out of the cell (all atoms within
`RADIUS` of the pair; a whole periodic cell of that size would have hundreds of atoms), and calls a hole what pushes one
of the two with more than `HOLE` eV/A. Then each criterion is judged by it, with Wilson intervals.

    python -m benchmarks.rss_referee --each 20
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from retemper.evaluation.robustness import holes, suite
from retemper.evaluation.robustness.context import Context
from retemper.evaluation.robustness.statistics import wilson
from retemper.models import evaluators
from retemper.simulation import engine
from retemper.simulation.points import single_points
from retemper.simulation.random_structures import compositions, nearest_ratio, random_structures
from retemper.simulation.relaxation import search

CHEMISTRIES = {"Na-Cl": (11, 17), "H-O": (1, 8), "C-H-N": (1, 6, 7)}
REFEREE = "ase:tblite.ase:TBLite(method='GFN1-xTB', verbosity=0)"
RADIUS, MOST = 4.0, 60  # A; atoms
HOLE = 15.0  # eV/A; thermal and strained structures stay below
PRESSURES = (0.1, 50.0)  # GPa
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)


def surroundings(atoms: Atoms) -> Atoms:
    """The pair with the smallest d / sum of radii first, then what is around it, as a cluster."""
    i, j, d, shift = neighbor_list("ijdS", atoms, 2 * RADIUS)
    radii = covalent_radii[atoms.numbers]
    k = int(np.argmin(d / (radii[i] + radii[j])))
    one, two = atoms.positions[i[k]], atoms.positions[j[k]] + shift[k] @ atoms.cell.array
    reach = np.ceil(2 * RADIUS / heights(atoms)).astype(int)
    images = np.array(list(np.ndindex(*(2 * reach + 1)))) - reach
    positions = (atoms.positions[None] + (images @ atoms.cell.array)[:, None]).reshape(-1, 3)
    numbers = np.tile(atoms.numbers, len(images))
    distance = np.linalg.norm(positions - (one + two) / 2, axis=1)
    order = np.argsort(distance)
    order = order[distance[order] < RADIUS][:MOST]
    pair = [order[np.argmin(np.linalg.norm(positions[order] - p, axis=1))] for p in (one, two)]
    rest = [n for n in order if n not in pair]
    return Atoms(numbers[[*pair, *rest]], positions[[*pair, *rest]])


def heights(atoms: Atoms) -> np.ndarray:
    """[3] A between the faces of the cell."""
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0))


def shares(name: str, said: np.ndarray, holes: np.ndarray) -> str:
    """Precision and recall of one criterion, with intervals."""
    both = int((said & holes).sum())
    precision, recall = wilson(both, int(said.sum())), wilson(both, int(holes.sum()))
    text = [f"{100 * s:3.0f} [{100 * low:3.0f}, {100 * high:3.0f}]" for s, low, high in (precision, recall)]
    return f"  {name:24s} precision {text[0]}   recall {text[1]}   ({int(said.sum())} named)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("foundations/mini.model"))
    parser.add_argument("--each", type=int, default=20, help="structures of a composition")
    parser.add_argument("--compositions", type=int, default=5, help="of a chemistry")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    model, referee = evaluators.describe(str(options.model)), evaluators.describe(REFEREE)
    every: list[tuple[float, list[str], float]] = []
    for name, elements in CHEMISTRIES.items():
        here = Context(model, elements)
        subject, _ = evaluators.fastest(model, suite.referees(here), elements, engine.CACHE)
        groups = [random_structures(c, options.each, 0) for c in compositions(elements, options.compositions)]
        how: dict[str, Any] = {"rounds": 2, "steps": options.steps, "fmax": 0.05, "rattle": 0.1, "seed": 0}
        tasks = [
            engine.Task(search, subject, {"starts": g, "pressure": pressure, **how}, name, len(g))
            for g in groups
            for pressure in PRESSURES
        ]
        judged: list[tuple[Atoms, list[str]]] = []
        for result in engine.run(tasks):
            for found, flags in zip(engine.require(result), holes.judge(result), strict=True):
                if not found.reason:
                    judged.append((found.atoms(), flags))
        checks = [
            engine.Task(single_points, referee, {"frames": [surroundings(a)]}, f"referee, {name}") for a, _ in judged
        ]
        rows = []
        for (atoms, flags), result in zip(judged, engine.run(checks), strict=True):
            if isinstance(result, engine.Failure) or result.reasons[0]:
                continue
            force = float(np.linalg.norm(result.forces[0][:2], axis=1).max())
            rows.append((nearest_ratio(atoms), flags, force))
        every += rows
        print(f"{name}: {len(rows)} structures, {sum(f > HOLE for *_, f in rows)} holes; the referee could not compute "
              f"{len(judged) - len(rows)}", flush=True)  # fmt: skip
        report(rows)
    print(f"all: {len(every)} structures, {sum(f > HOLE for *_, f in every)} holes")
    report(every)


def report(rows: list[tuple[float, list[str], float]]) -> None:
    """Precision and recall of each criterion on (smallest ratio, criteria met, largest force of the referee)."""
    holes = np.array([force > HOLE for *_, force in rows])
    if not len(rows) or not holes.any():
        print("  no holes: nothing to judge")
        return
    ratios = np.array([ratio for ratio, *_ in rows])
    paper = np.array([bool(set(flags) - {"ratio"}) for _, flags, _ in rows])
    print(shares("the paper's four", paper, holes))
    for limit in RATIOS:
        print(shares(f"d / sum of radii < {limit:g}", ratios < limit, holes))
    forces = np.array([force for *_, force in rows])
    quartiles = np.percentile(forces, [10, 25, 50, 75, 90])
    print(f"  referee's largest force, 10/25/50/75/90 %: {' '.join(f'{q:.1f}' for q in quartiles)} eV/A", flush=True)


if __name__ == "__main__":
    main()
