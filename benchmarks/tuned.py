"""What the sweeps of a project gained: the strategies' own settings against those that were found.

    python -m benchmarks.tuned          # in a project whose sweeps are done (sweep.trials in params.yaml)

Reads ``runs/sweep``, measures the default trial and the chosen one of every strategy on the test set and on the
retention set, which no trial has seen, and prints a table of paired ratios with intervals over groups of structures.
"""

from __future__ import annotations

from pathlib import Path

from retemper.config.metric_names import TEST
from retemper.config.project import Project
from retemper.config.strategies import in_words
from retemper.config.strict_yaml import read_yaml
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import read_json
from retemper.evaluation import accuracy, stage


def row(sets: stage.HeldOut, folder: Path) -> str:
    """A line of the table: force RMSE before and after on every set, and the ratio with its interval."""
    best, default = read_yaml(folder / "best.yaml"), read_json(folder / "about.json")["default"]
    chosen = best["provenance"]["training"]
    before, after = (
        stage.measure_fine_tuned(sets, sets.project.training(key) / weight_files.NAME) for key in (default, chosen)
    )
    cells = [folder.name]
    for name in TEST:
        if name not in before:
            cells += ["", ""]
            continue
        one, two = (accuracy.values(part[name].errors)["force_rmse"] for part in (before, after))
        own, base = after[name].errors, before[name].errors
        ratio = accuracy.ratio([own], base, "force_rmse", sets.project.settings.evaluate.confidence)
        groups = len(set(own.group))
        interval = f"[{ratio.low:.2f}, {ratio.high:.2f}], {groups} groups" if groups > 1 else "one group"
        cells += [f"{one:.4g} → {two:.4g}", f"{ratio.value:.2f} {interval}"]
    cells.append(", ".join(f"{path.rpartition('.')[2]} {in_words(value)}" for path, value in best["settings"].items()))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    project = Project.here()
    sets = stage.read_sets(project)
    folders = sorted(path.parent for path in project.root.glob("runs/sweep/*/about.json"))
    if not folders:
        raise RetemperError("No sweep is done here.", fix="set sweep.trials in params.yaml, then `dvc repro`")
    rows = [row(sets, folder) for folder in folders]
    print("| strategy | target forces, meV/Å | ratio | retention forces | ratio | replay head | ratio | found |")
    print("|" + "---|" * 8)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
