"""Does a high learning rate destroy the replay head, as in arXiv:2606.12704, Table 9? A training for each rate.

    python -m benchmarks.replay_rate                    # in a project with runs/replay
    python -m benchmarks.replay_rate --strategy replay-lora --rates 1e-3 1e-2

Prints the errors of the last and of the best epoch: target, replay head, and the target head on the same
pretraining structures.
"""

from __future__ import annotations

import argparse

from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.files import project_root
from retemper.finetune import parallel, planning
from retemper.records.runs import read_history
from retemper.sweep import objectives

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay_rate")
    parser.add_argument("--strategy", default="replay")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    options = parser.parse_args()
    root = project_root()
    settings = load_settings(root / "params.yaml")
    settings = settings.model_copy(update={"seeds": settings.seeds[:1]})
    processes.prepare(settings.finetune.device)
    plans = [
        planning.plans(Project(root, settings), options.strategy, {"training.lr": rate})[0] for rate in options.rates
    ]
    folders = [root / ".cache/training" / plan.key for plan in plans]
    count = parallel.workers(settings.finetune.workers, settings.finetune.device, len(plans))
    parallel.train_all(plans, folders, count, lambda seed, row: print(".", end="", flush=True))
    print("\n| learning rate | target, last epoch | replay head, last epoch | target, best | replay head, best | "
          "target head on pretraining, best |\n" + "|---" * 6 + "|")  # fmt: skip
    retention = objectives.retention_file(Project(root, settings))
    for rate, plan, folder in zip(options.rates, plans, folders, strict=True):
        last = read_history(folder / "history.csv")[-1]
        best = objectives.measure(plan, folder, str(retention) if retention else None)
        print(
            f"| {rate:g} | {last['valid.force_rmse']:.1f} | {last['valid_replay.force_rmse']:.1f} "
            f"| {best['target']:.1f} | "
            f"{best['replay_head']:.1f} | {best.get('retention', float('nan')):.1f} |"
        )


if __name__ == "__main__":
    main()
