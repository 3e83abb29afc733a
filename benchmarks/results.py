"""The tables of docs/results.md: every strategy on a labelled set, measured on held-out structures.

    python -m benchmarks.results nacl molecules                       # embedded sets
    RETEMPER_DATA=... python -m benchmarks.results 3bpa water nacl-water

Runs the stages dataset to evaluate as the pipeline does, trainings side by side, in ``.cache/results/<set>``; what is
there is not run again. Prints means with their 95 % intervals over groups of test structures and over seeds.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from retemper.config.project import FOUNDATION, Project
from retemper.config.settings import Settings, load_settings, parse
from retemper.config.strict_yaml import read_yaml
from retemper.core import processes
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write, project_root
from retemper.evaluation import stage
from retemper.evaluation.statistics import two_sided
from retemper.finetune import collect, planning
from retemper.finetune.plan import Plan
from retemper.promotion import compare as paired
from retemper.records.evaluation import Evaluation
from retemper.records.runs import read_results
from retemper.report.comparison import COLUMNS, Recipes, compare, interval, mean_text, number
from retemper.systems import DATASET, find

ALL = ["scratch", "naive", "freeze-5", "freeze-6", "lora", "replay", "pseudolabel-replay", "replay-lora"]
FEW = ["scratch", "naive", "lora", "replay"]
JUDGED = (("target.force_rmse", "force_rmse"), ("target.energy_rmse", "energy_rmse"))
LINKED = ("strategies", "foundations", "data", "systems")
REAL = "real"  # folder of the optional data
BPA = {"level_of_theory": "wB97X/6-31G(d)", "test_files": ["3bpa_mixedT.extxyz"], "files": ["3bpa_300K.extxyz"]}
SETS: dict[str, dict[str, Any]] = {
    "nacl": {"strategies": ALL, "seeds": [1, 2], "epochs": 10},
    "molecules": {"strategies": ALL, "seeds": [1, 2], "epochs": 10},
    "3bpa": {"strategies": ALL, "seeds": [1, 2], "epochs": 15, "size": 80, "dataset": BPA},
    **{
        f"3bpa-{size}": {"strategies": FEW[:2], "seeds": [1, 2], "epochs": epochs, "size": size, "dataset": BPA}
        for size, epochs in ((20, 50), (200, 12), (475, 6))
    },
    "water": {
        "strategies": FEW,
        "seeds": [1],
        "epochs": 8,
        "size": 30,
        "dataset": {"level_of_theory": "revPBE0-D3", "files": ["water64_revPBE0-D3.extxyz"]},
    },
    "nacl-water": {
        "strategies": FEW,
        "seeds": [1],
        "epochs": 8,
        "size": 30,
        "dataset": {"level_of_theory": "RI-MP2", "files": ["nacl_water_MP2_gen2.extxyz"]},
    },
}


def settings_of(name: str, root: Path) -> Settings:
    """Settings of a set: the example's, with its data, sizes and strategies."""
    content, wanted = read_yaml(root / "params.yaml"), SETS[name]
    if "dataset" in wanted:
        folder = Path(os.environ["RETEMPER_DATA"]) / REAL
        data = dict(wanted["dataset"])
        for key in ("files", "test_files"):
            data[key] = [str(folder / file) for file in data.get(key, [])]
        data |= {"group": "auto", "keys": {"stress": None}}
    else:
        data = {key: value for key, value in find(name, root).model_dump().items() if key in (*DATASET, "keys")}
    shared = {key: content["dataset"][key] for key in ("valid", "test")}
    content["dataset"] = {**shared, **data, "max_train": wanted.get("size", 50)}
    content["e0s"] = {"force": name in ("water", "nacl-water")}
    content |= {"system": name, "strategies": wanted["strategies"], "seeds": wanted["seeds"]}
    content["finetune"]["epochs"] = wanted["epochs"]
    return parse(Settings, content, name)


def prepare(name: str, root: Path) -> list[Plan]:
    """The stages before training, in a folder of links to the project; the plans of every strategy and seed."""
    from retemper.prepare import dataset, e0s, pseudolabel, replay

    settings, here = settings_of(name, root), place(name, root)
    for folder in LINKED:
        if not (here / folder).exists():
            (here / folder).symlink_to(root / folder)
    with atomic_write(here / "params.yaml") as temporary:
        temporary.write_text(settings.model_dump_json())
    project = Project(here, settings)
    if not project.manifest.is_file():
        dataset.run(project)
    if not project.e0s.is_file():
        e0s.run(project)
    if not (project.replay / "manifest.json").is_file():
        replay.run(project)
    if not (project.pseudolabel / "manifest.json").is_file():
        pseudolabel.run(project)
    if not (project.evaluation(FOUNDATION) / "metrics.json").is_file():
        stage.run(project, FOUNDATION)
    return [plan for strategy in settings.strategies for plan in planning.plans(project, strategy)]


def place(name: str, root: Path) -> Path:
    """The folder of a set."""
    folder = root / ".cache/results" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train(name: str, root: Path, plan: Plan) -> None:
    """One training; finished ones return at once."""
    from retemper.finetune.mace.train import train as run

    processes.prepare("cpu")
    run(plan, place(name, root) / ".cache/training" / plan.key, lambda row: None)


def measure(name: str, root: Path, strategy: str) -> None:
    """Gather and evaluate the seeds of a strategy."""
    processes.prepare("cpu")
    here = place(name, root)
    settings = load_settings(here / "params.yaml")
    if (here / f"runs/evaluate/{strategy}/metrics.json").is_file():
        return
    project = Project(here, settings)
    plans = planning.plans(project, strategy)
    folders = [here / ".cache/training" / plan.key for plan in plans]
    collect.collect(project, strategy, plans, folders, {})
    stage.run(project, strategy)


def table(name: str, root: Path) -> str:
    """The set's table as Markdown."""
    here = place(name, root)
    found = compare(read_results(Project.here(here)))
    columns = [column for column in COLUMNS if column.errors]
    lines = [f"| {name} | " + " | ".join(f"{c.title}, {c.under}" for c in columns) + " |", "|---" * 6 + "|"]
    for row, values in found.rows.items():
        cells = []
        for column in columns:
            value = values[column.key]
            if value is None or value.low is None or value.high is None:
                cells.append("" if value is None else number(value.value))
            else:
                cells.append(f"{mean_text(column, value)} [{interval(column, value)}]".replace(" – ", ", "))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    groups = Evaluation.read(here / "runs/evaluate/foundation/metrics.json").seeds[0].target.n_groups
    ratios = [
        f"{strategy} not distinguished from {found.best[key]} in {key}"
        for key, _ in JUDGED
        for strategy in found.tied.get(key, ())
    ]
    ratios += [f"{quantity} scratch / naive {_over_naive(found.recipes, key, quantity)}" for key, quantity in JUDGED]
    return "\n".join([*lines, "", f"{groups} groups of test structures. {'; '.join(ratios)}"])


def _over_naive(recipes: dict[str, Recipes], key: str, quantity: str) -> str:
    """Ratio of scratch to naive fine-tuning on the same structures, with its interval over groups and seeds."""
    own = {name: seeds for name, seeds in recipes[key].items() if name != FOUNDATION}
    scatter = paired.scatter(own, quantity)
    if scatter.known:
        names = ["scratch", "naive"]
        ratio = paired.over_seeds(own["scratch"], own["naive"], quantity, two_sided(0.95), scatter, names)
    else:
        ratio = paired.over_groups(own["scratch"][0], own["naive"][0], quantity, two_sided(0.95))
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="tables of docs/results.md")
    parser.add_argument("sets", nargs="+", choices=sorted(SETS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    root = project_root()
    if any("dataset" in SETS[name] for name in options.sets) and "RETEMPER_DATA" not in os.environ:
        raise RetemperError("These sets are not embedded.", fix="set RETEMPER_DATA to the folder of the optional data")
    processes.prepare("cpu")
    with ProcessPoolExecutor(options.workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        plans = list(pool.map(prepare, options.sets, [root] * len(options.sets)))
        work = [(name, plan) for name, own in zip(options.sets, plans, strict=True) for plan in own]
        work.sort(key=lambda entry: -entry[1].epochs * entry[1].target.n_train)
        list(pool.map(train, [name for name, _ in work], [root] * len(work), [plan for _, plan in work]))
        pairs = [(name, strategy) for name in options.sets for strategy in SETS[name]["strategies"]]
        list(pool.map(measure, [n for n, _ in pairs], [root] * len(pairs), [s for _, s in pairs]))
    for name in options.sets:
        print(table(name, root), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
