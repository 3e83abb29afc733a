"""Trials an hour of a sweep against the same trainings as ``mace_run_train`` processes, two at a time.

    python -m benchmarks.sweep                        # 16 trials of naive, 16 epochs; needs idle cores
    python -m benchmarks.sweep --trials 4 --epochs 4  # shorter: start-up weighs more

Three measurements on the embedded example: a sweep with early stopping off; the trainings of that very sweep
by MACE's own command (its files ``mace.yaml``), as many at a time; a sweep with early stopping on, with the
best result of both. The scores are those of the validation set, best of many and of one seed each: a difference of some
per cent between the two is no result.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from retemper.core.files import project_root
from retemper.sweep import optuna_study as studies
from retemper.sweep.choice import Trial, choose, score

OBJECTIVES = ["target", "retention"]


def prepare(folder: Path, trials: int, epochs: int, concurrent: int) -> None:
    """A project with the embedded example, up to the sweep."""
    root = project_root()
    for name in ("strategies", "foundations", "data"):
        shutil.copytree(root / name, folder / name)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["finetune"]["epochs"] = epochs
    params["sweep"] = {"trials": trials, "prune": False, "concurrent": concurrent}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("dataset", "e0s", "replay", "pseudolabel"):
        run([sys.executable, "-m", f"pipelines.{stage}"], folder)


def run(command: list[str], folder: Path) -> float:
    """Wall seconds of a command."""
    root = project_root()
    path = os.pathsep.join([str(root / "platform"), str(root)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def sweep(folder: Path, strategy: str, prune: bool) -> tuple[float, list[Trial]]:
    """Wall seconds of the stage from nothing, and its trials."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["sweep"]["prune"] = prune
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    seconds = run([sys.executable, "-m", "pipelines.sweep", strategy], folder)
    (about,) = folder.glob(".cache/sweep/*/about.json")
    return seconds, studies.read(about.parent)


def by_mace(folder: Path, trials: list[Trial], concurrent: int) -> float:
    """Wall seconds of the same trainings by MACE's command, `concurrent` at a time (as ``xargs -P`` does)."""
    configs = []
    for one in trials:
        training = folder / ".cache/training" / one.training
        work = folder / f"mace-{one.number}"
        work.mkdir()
        text = (training / "mace.yaml").read_text().replace(str(training / "mace"), str(work / "mace"))
        (work / "mace.yaml").write_text(text)
        configs.append(work / "mace.yaml")
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        list(
            pool.map(
                lambda path: run([sys.executable, "-m", "mace.cli.run_train", "--config", str(path)], folder), configs
            )
        )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--strategy", default="naive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.trials, options.epochs, options.concurrent)
        whole, trials = sweep(folder, options.strategy, prune=False)
        print(f"sweep, early stopping off: {whole:.0f} s, {rate(trials, whole)}", flush=True)
        mace = by_mace(folder, trials, options.concurrent)
        print(f"mace_run_train, {options.concurrent} at a time: {mace:.0f} s, {rate(trials, mace)}")
        print(f"ratio: {mace / whole:.2f}", flush=True)
        halved, stopped = sweep(folder, options.strategy, prune=True)
        pruned = sum(one.state == "pruned" for one in stopped)
        print(
            f"sweep, early stopping on: {halved:.0f} s, {pruned} of {len(stopped)} stopped, ratio {mace / halved:.2f}"
        )
        for word, found in (("off", trials), ("on", stopped)):
            values = choose(found, OBJECTIVES, "family").values
            print(
                f"best with early stopping {word}: target {values['target']:.1f}, retention {values['retention']:.1f}, "
                f"score {score(values, OBJECTIVES, 'family'):.3f}"
            )


def rate(trials: list[Trial], seconds: float) -> str:
    return f"{3600 * len(trials) / seconds:.0f} trials an hour"


if __name__ == "__main__":
    main()
