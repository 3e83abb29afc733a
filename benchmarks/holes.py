"""Does a strategy make holes that the foundation does not have? Random structure search, paired by structure.

    python -m benchmarks.holes                        # in a project whose robustness stage measured rss
    python -m benchmarks.holes --metric rss_strict

Every model begins with the same structures. For each strategy and pressure: the share of structures in a hole, mean
over its measured seeds, minus the foundation's, with a 95 % interval over compositions, in points.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from retemper.core.errors import RetemperError
from retemper.core.files import project_root
from retemper.evaluation.robustness import units
from retemper.evaluation.robustness.holes import PRESSURES
from retemper.evaluation.robustness.units import Unit
from retemper.records.runs import FOUNDATION


def holes(folder: Path, metric: str) -> list[Unit]:
    """Every structure with the mean over the seeds of a model of whether it met a criterion."""
    seeds = [units.read(path).get(metric, []) for path in sorted(folder.glob(f"seed-*/{units.UNITS}"))]
    found = [{(unit.group, unit.name): unit.value for unit in seed} for seed in seeds]
    if not found or not all(found):
        raise RetemperError(
            f"{folder} has no structures to compare.",
            expected=f"{metric} measured for every seed",
            fix=f"{metric} among robustness.metrics, then `dvc repro`",
        )
    common = [key for key in found[0] if all(key in seed for seed in found)]
    return [Unit(group, name, float(np.mean([seed[group, name] for seed in found]))) for group, name in common]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--metric", choices=("rss", "rss_strict"), default="rss")
    metric = parser.parse_args().metric
    root = project_root() / "runs/robustness"
    reference = holes(root / FOUNDATION, metric)
    print("| strategy | " + " | ".join(f"{p:g} GPa" for p in PRESSURES) + " |\n|" + "---|" * (len(PRESSURES) + 1))
    groups = 0
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name != FOUNDATION):
        own, cells = holes(folder, metric), []
        for pressure in PRESSURES:
            sides = [[u for u in side if u.name.startswith(f"{pressure:g} GPa")] for side in (own, reference)]
            found = units.paired_difference(*sides)
            groups = found.groups
            cells.append(f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]")
        print(f"| {folder.name} | {' | '.join(cells)} |")
    print(f"\n95 % intervals over {groups} compositions")


if __name__ == "__main__":
    main()
