"""Does a strategy make holes that the foundation does not have? Random structure search, paired by structure.

    python -m benchmarks.holes          # in a project whose robustness stage measured rss

Every model begins with the same structures. For each strategy and pressure: the share of structures in a hole, mean
over its measured seeds, minus the foundation's, with a 95 % interval (bootstrap over structures), in points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retemper.errors import RetemperError
from retemper.files import project_root
from retemper.results import FOUNDATION, read_table
from retemper.robustness.metrics.rss import PRESSURES

RESAMPLES = 4000


def holes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whether each structure [n] met a criterion, mean over the seeds of a model; and its pressure [n]."""
    seeds = [read_table(path) for path in sorted(folder.glob("seed-*/rss-structures.csv"))]
    if len({len(rows) for rows in seeds}) != 1:
        raise RetemperError(
            f"{folder} has no structures to compare.",
            expected="rss measured for every seed, of the same structures",
            fix="rss among robustness.metrics, then `dvc repro`; structures that could not be computed are not paired",
        )
    met = np.mean([[bool(row["criteria"]) for row in rows] for rows in seeds], axis=0)
    return met, np.array([float(row["pressure"]) for row in seeds[0]])


def main() -> None:
    root = project_root() / "runs/robustness"
    reference, pressures = holes(root / FOUNDATION)
    rng = np.random.default_rng(0)
    print("| strategy | " + " | ".join(f"{p:g} GPa" for p in PRESSURES) + " |\n|" + "---|" * (len(PRESSURES) + 1))
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != FOUNDATION):
        more, cells = holes(folder)[0] - reference, []
        for pressure in PRESSURES:
            own = 100 * more[pressures == pressure]
            drawn = own[rng.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1)
            low, high = np.percentile(drawn, [2.5, 97.5])
            cells.append(f"{own.mean():+.1f} [{low:+.1f}, {high:+.1f}]")
        print(f"| {folder.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
