"""Learning curves of active learning: each selector against random, from 10 labels, on two systems at GFN2-xTB.

    python -m benchmarks.active                              # all: some hours of one core; killed, it goes on
    python -m benchmarks.active --systems sn2 --seeds 0 --selectors random combined
    python -m benchmarks.active --smoke                      # minutes: does it run
    python -m benchmarks.active --table                      # tables and plots of what is done

``nacl`` begins with small cool droplets; ``sn2`` with the complexes CH3X + Y- (X, Y of F and Cl). Each round trains
one model from the embedded foundation, explores from what is labelled by MD ramps and by dynamics under a force between
two atoms, lets one selector choose, and labels. Two tests that no round sees: frames like those at the beginning, and
others away from them (hot, larger droplets; hot complexes and the reaction path). Everything is kept under
``.cache/benchmarks/active`` and found again by its settings.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks import active_systems
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import processes, weight_files
from retemper.core.files import atomic_folder, digest, project_root, read_json, write_json
from retemper.data.frames import FORCES, read_frames, write_frames
from retemper.models import library

SELECTORS = ("random", "uncertainty", "farthest_point", "combined", "lcmd")
TESTS = ("inside", "outside")
BATCH = 4
SOUND = 10  # replicas of MD that a model is asked to survive
GATES = {"inside": 100.0, "outside": 200.0, "sound": 0.9}  # meV/A, meV/A, share of the replicas


def settings_of(system: str, selector: str, seed: int, options: argparse.Namespace) -> Settings:
    """What one curve runs with."""
    md = {"replicas": SOUND, "steps": options.steps, "temperature": 300.0, "final": active_systems.FINAL[system]}
    return Settings.model_validate(
        {
            "system": system,
            "foundation": "mini",
            "strategies": ["naive"],
            "seeds": [seed + 1],
            "dataset": {"files": ["none"], "level_of_theory": "GFN2-xTB"},
            "finetune": {"epochs": epochs(10, options), "batch_size": BATCH},
            "e0s": {"force": True, "max_error": 1000.0},  # strained structures may be far from what the foundation says
            "acquire": {
                "explorers": [{"name": "md", "options": md}, {"name": "push", "options": {"paths": 2 * SOUND}}],
                "trust": options.trust,
                "selector": selector,
                "uncertainty": options.uncertainty,
                "labels": options.labels,
                "candidates": options.candidates,
                "workers": 1,
                "seed": seed,
            },
        }
    )


def epochs(labels: int, options: argparse.Namespace) -> int:
    """As many as make `options.gradient_steps`: curves are to show what labels are worth, not longer training."""
    return -(-options.gradient_steps // max(1, labels // BATCH))


def round_folder(base: Path, system: str, selector: str, seed: int, number: int) -> Path:
    """Where a round's training set, model and results lie; the first is the same for every selector."""
    return base / system / ("start" if number == 0 else selector) / f"seed-{seed}" / f"round-{number}"


def rmse(squares: list[np.ndarray]) -> float:
    """meV/A, of squared errors of force components in (eV/A)^2."""
    return 1e3 * float(np.sqrt(np.concatenate(squares).mean()))


def run_round(
    folder: Path,
    train: list[Atoms],
    data: dict[str, list[Atoms]],
    settings: Settings,
    seed: int,
    options: argparse.Namespace,
) -> None:
    """Train on `train`, measure both tests, explore; writes the folder whole or not at all."""
    from retemper.active import choose
    from retemper.active.acquire import calibration_of
    from retemper.active.source import Source
    from retemper.finetune.mace.train import train as fit
    from retemper.models.predict import predict
    from retemper.prepare import e0s

    root, start = project_root(), time.process_time()
    with atomic_folder(folder) as out:
        for name in ("strategies", "foundations"):
            (out / name).symlink_to(root / name)
        sets = {"train": train, "valid": data["valid"], "isolated": data["isolated"], "test": data["inside"]}
        for name, frames in sets.items():
            write_frames(out / f"runs/dataset/{name}.extxyz", frames)
        e0s.run(Project(out, settings))
        longer = {"epochs": epochs(len(train), options)}
        settings = settings.model_copy(update={"finetune": settings.finetune.model_copy(update=longer)})
        from retemper.finetune import planning

        (plan,) = planning.plans(Project(out, settings), "naive")
        training = out / "training"
        fit(plan, training, lambda row: None)
        (training / weight_files.NAME).rename(out / weight_files.NAME)
        found: dict[str, Any] = {"train": len(train)}
        for name in TESTS:
            forces = predict(out / weight_files.NAME, data[name], backend="torch").forces
            squares = [(f - atoms.arrays[FORCES]).ravel() ** 2 for f, atoms in zip(forces, data[name], strict=True)]
            kinds = [str(atoms.info["config_type"]) for atoms in data[name]]
            found[name] = rmse(squares)
            found |= {
                f"{name} {kind}": rmse([s for s, k in zip(squares, kinds, strict=True) if k == kind])
                for kind in sorted(set(kinds))
            }
        here = Source("naive", False, {seed: out / weight_files.NAME}, seed, train, data["valid"], "cpu")
        explored = choose.explore(here, settings.acquire, seed * 100 + len(train), out / ".cache/active")
        found["sound"] = 1 - sum(note.startswith("md-") for note in explored.notes) / SOUND
        found["gates"] = [found["inside"] <= GATES["inside"], found["outside"] <= GATES["outside"]]
        found["gates"].append(found["sound"] >= GATES["sound"])
        known = [*train, *data["valid"], *data["inside"], *data["outside"]]
        estimate = choose.estimator(here, settings.acquire)
        held_out = calibration_of(here, estimate, data["valid"], None)
        candidates, turned_away = choose.admissible(explored, estimate, held_out, here, settings, known)
        found |= {"candidates": len(candidates), "turned_away": turned_away}
        write_frames(out / "candidates.extxyz", candidates)
        found["cpu_seconds"] = round(time.process_time() - start, 1)
        write_json(out / "result.json", found)
        shutil.rmtree(out / ".cache", ignore_errors=True)
        shutil.rmtree(training)


def grow(folder: Path, train: list[Atoms], data: dict[str, list[Atoms]], settings: Settings, seed: int) -> list[Atoms]:
    """The training set of the next round: the selector's choice among the round's candidates, labelled."""
    from retemper.active import choose, label
    from retemper.active.acquire import calibration_of
    from retemper.active.source import Source

    here = Source("naive", False, {seed: folder / weight_files.NAME}, seed, train, data["valid"], "cpu")
    estimate = choose.estimator(here, settings.acquire)
    held_out = calibration_of(here, estimate, data["valid"], None)
    candidates = choose.trusted_frames(read_frames(folder / "candidates.extxyz"), estimate, held_out, settings.acquire)
    chosen = choose.select(candidates, here, settings.acquire, settings.acquire.labels, seed * 100 + len(train))
    labelled, failed = label.label_all(chosen, settings.acquire, project_root())
    print(f"    {len(labelled)} labels, {len(failed)} failed; {held_out.sentence()}", flush=True)
    mild = [a for a in labelled if np.linalg.norm(a.arrays[FORCES], axis=1).max() <= settings.dataset.max_force]
    return [*train, *mild]


def run_curve(base: Path, system: str, selector: str, seed: int, options: argparse.Namespace) -> None:
    """All rounds of one curve; those that are done are read."""
    settings = settings_of(system, selector, seed, options)
    data = active_systems.sets(system, seed, base / "data")
    train = data["start"]
    for number in range(options.rounds + 1):
        folder = round_folder(base, system, selector, seed, number)
        if not (folder / "result.json").is_file():
            run_round(folder, train, data, settings, seed, options)
        found = read_json(folder / "result.json")
        print(
            f"{system} {selector} seed {seed} round {number}: {found['train']} labels, inside {found['inside']:.0f}, "
            f"outside {found['outside']:.0f} meV/A, sound {found['sound']:.1f}; {found['cpu_seconds']:.0f} CPU-s",
            flush=True,
        )
        if number < options.rounds:
            grown = folder / f"next-{selector}.extxyz"
            if not grown.is_file():
                write_frames(grown, grow(folder, train, data, settings, seed))
            train = read_frames(grown)


# ------------------------------------------------------------------ what came of it


def curves(base: Path, options: argparse.Namespace) -> dict[tuple[str, str], dict[int, list[dict[str, Any]]]]:
    """Results by (system, selector) and round, one for each seed that is done."""
    found: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = {}
    for system in options.systems:
        for selector in options.selectors:
            rounds: dict[int, list[dict[str, Any]]] = {}
            for number in range(options.rounds + 1):
                paths = [round_folder(base, system, selector, seed, number) / "result.json" for seed in options.seeds]
                rounds[number] = [read_json(path) for path in paths if path.is_file()]
            found[system, selector] = {number: of for number, of in rounds.items() if of}
    return found


def interval(values: list[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval over seeds (Student's t of the logarithms); a single seed has none.

    Seeds draw other first labels and train anew; the structures of a test come from the same trajectories for all of
    them. So the interval is of these tests, and not of other trajectories.
    """
    from scipy.stats import t

    logs = np.log(values)
    reach = 0.0 if len(logs) < 2 else float(t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    mean = float(logs.mean())
    return float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach))


def needed(points: list[tuple[float, float]], error: float) -> float | None:
    """Labels at which a curve first comes down to `error`, interpolated in logarithms; `None` if it does not."""
    if points[0][1] <= error:
        return points[0][0]
    for (n0, e0), (n1, e1) in pairwise(points):
        if e1 <= error <= e0:
            share = (np.log(e0) - np.log(error)) / (np.log(e0) - np.log(e1))
            return float(np.exp(np.log(n0) + share * (np.log(n1) - np.log(n0))))
    return None


def against_random(own: list[list[tuple[float, float]]], random: list[list[tuple[float, float]]]) -> str:
    """Curves seed by seed: the ratio of the last errors, and the labels for the error that random has at its end."""
    if any(len(curve) < 2 for curve in (*own, *random)) or len(own) != len(random):
        return ""
    mean, low, high = interval([a[-1][1] / b[-1][1] for a, b in zip(own, random, strict=True)])
    fewer = []
    for a, b in zip(own, random, strict=True):
        labels = needed(a, b[-1][1])
        fewer.append("not reached" if labels is None else f"{b[-1][0] / labels:.1f}")
    return f"  {mean:.2f} [{low:.2f}, {high:.2f}] of random's error; times fewer labels for it: {', '.join(fewer)}"


def by_seed(rounds: dict[int, list[dict[str, Any]]], test: str) -> list[list[tuple[float, float]]]:
    """Curves of (labels, error), one for each seed."""
    return [[(one["train"], one[test]) for one in curve] for curve in zip(*rounds.values(), strict=False)]


def report(base: Path, options: argparse.Namespace) -> None:
    """Tables on the terminal, ``curves.csv`` and a plot a system and test."""
    from retemper.active import figures

    found = curves(base, options)
    rows: list[list[Any]] = []
    for system in options.systems:
        for test in TESTS:
            lines: dict[str, list[tuple[float, float, float, float]]] = {}
            for selector in options.selectors:
                for number, of in found[system, selector].items():
                    n = float(np.mean([one["train"] for one in of]))
                    mean, low, high = interval([one[test] for one in of])
                    held = float(np.mean([np.mean(one["gates"]) for one in of]))
                    lines.setdefault(selector, []).append((n, mean, low, high))
                    rows.append([system, test, selector, number, len(of), n, mean, low, high, held])
            print(f"\n{system}, force RMSE {test} (meV/A)")
            for selector, points in lines.items():
                text = "  ".join(f"{n:.0f}: {mean:.0f} [{low:.0f}, {high:.0f}]" for n, mean, low, high in points)
                print(f"  {selector:15s} {text}")
                if selector != "random" and "random" in lines:
                    print(17 * " " + against_random(*(by_seed(found[system, s], test) for s in (selector, "random"))))
            if lines:
                figures.learning_png(lines, base / f"{system}-{test}.png", f"{system}, {test} the first labels")
    with (base / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        head = ["system", "test", "selector", "round", "seeds", "labels", "force_rmse", "low", "high", "gates_held"]
        writer.writerows([head, *rows])
    print(f"\nIntervals are over seeds, on the same test trajectories.\n{base}/curves.csv and *.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active")
    add = parser.add_argument
    add("--systems", nargs="+", default=list(active_systems.SYSTEMS), choices=active_systems.SYSTEMS)
    add("--selectors", nargs="+", default=list(SELECTORS), choices=SELECTORS)
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--uncertainty", default="llpr", choices=("llpr", "distance"))
    add("--trust", type=float, default=0.5, help="eV/A of expected error: a trajectory is left there")
    add("--rounds", type=int, default=4)
    add("--labels", type=int, default=10)
    add("--candidates", type=int, default=300)
    add("--steps", type=int, default=600, help="of each of 10 replicas of exploring MD")
    add("--gradient-steps", type=int, default=600, help="of each training, however many labels it has")
    add("--smoke", action="store_true", help="one system, one seed, one round, tiny")
    add("--table", action="store_true", help="only what is done")
    options = parser.parse_args()
    processes.prepare()
    library.import_mace()
    if options.smoke:
        options.systems, options.seeds, options.selectors, options.rounds = ["sn2"], [0], ["random", "combined"], 1
        options.gradient_steps, options.steps, options.candidates, options.labels = 6, 40, 20, 3
    names = ("uncertainty", "trust", "labels", "candidates", "steps", "gradient_steps", "smoke")
    base = project_root() / ".cache/benchmarks/active" / digest({name: getattr(options, name) for name in names})
    if not options.table:
        for seed in options.seeds:
            for system in options.systems:
                for selector in options.selectors:
                    run_curve(base, system, selector, seed, options)
    report(base, options)


if __name__ == "__main__":
    main()
