"""Which criteria of random structure search name real holes? Precision and recall against periodic GFN1-xTB.

Random cells of three chemistries are relaxed by the model at 0.1 GPa, where it sees next to no force.
The referee computes the same structures, repeated until every height is at least 8.5 A (it samples the
Gamma point alone), and calls a hole what it pushes apart with more than `HOLE` eV/A. Then each criterion
is judged by it, with Wilson intervals.

    python -m benchmarks.rss_referee --each 20
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.robustness import calculators, engine, suite
from retemper.robustness.context import Context
from retemper.robustness.generate import compositions, nearest_ratio, random_structures
from retemper.robustness.metrics import rss
from retemper.robustness.points import single_points
from retemper.robustness.relaxation import search
from retemper.robustness.stats import wilson

CHEMISTRIES = {"Na-Cl": (11, 17), "H-O": (1, 8), "C-H-N": (1, 6, 7)}
REFEREE = "ase:tblite.ase:TBLite(method='GFN1-xTB', verbosity=0)"
HEIGHT = 8.5  # A
HOLE = 15.0  # eV/A; thermal and strained structures stay below
RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)


def repeated(atoms: Atoms, most: int) -> Atoms | None:
    """Repeated until every height reaches `HEIGHT`; `None` for more than `most` atoms."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    large = atoms.repeat(np.ceil(HEIGHT / heights).astype(int))
    return large if len(large) <= most else None


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
    parser.add_argument("--most", type=int, default=150, help="atoms that the referee computes at most")
    options = parser.parse_args()
    model, referee = calculators.describe(str(options.model)), calculators.describe(REFEREE)
    every: list[tuple[float, list[str], float]] = []
    for name, elements in CHEMISTRIES.items():
        here = Context(model, elements)
        subject, _ = calculators.fastest(model, suite.referees(here), elements, engine.CACHE)
        groups = [random_structures(c, options.each, 0) for c in compositions(elements, options.compositions)]
        how: dict[str, Any] = {"pressure": 0.1, "rounds": 2, "steps": options.steps, "fmax": 0.05, "rattle": 0.1}
        tasks = [engine.Task(search, subject, {"starts": g, **how, "seed": 0}, name, len(g)) for g in groups]
        judged: list[tuple[Atoms, list[str]]] = []
        for result in engine.run(tasks):
            for found, flags in zip(engine.require(result), rss.judge(result), strict=True):
                atoms = Atoms(found["numbers"], found["positions"], cell=found["cell"], pbc=True)
                if not found["reason"] and (large := repeated(atoms, options.most)) is not None:
                    judged.append((large, flags))
        checks = [
            engine.Task(single_points, referee, {"frames": [a]}, f"referee, {name}", len(a) ** 2) for a, _ in judged
        ]
        rows = []
        for (atoms, flags), result in zip(judged, engine.run(checks), strict=True):
            if isinstance(result, engine.Failure) or result["reasons"][0]:
                continue
            force = float(np.linalg.norm(result["forces"][0], axis=1).max())
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
