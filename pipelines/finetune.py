"""Stage finetune@S: train one strategy with every seed, side by side.

python -m pipelines.finetune lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.config.strategies import Strategy
from retemper.core import processes
from retemper.core.files import project_root
from retemper.finetune import collect, parallel, planning
from retemper.records import course
from retemper.records.runs import read_seeds
from retemper.sweep import output
from retemper.tracking import runs


@stage
def main(strategy: str) -> None:
    """Train, track, and put models, histories and proofs into ``runs/finetune/<strategy>``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
    found = output.best_settings(root, strategy)
    plans = planning.plans(settings, strategy, root, found)
    folders = [root / ".cache/training" / plan.key for plan in plans]
    count = parallel.workers(settings.finetune.workers, settings.finetune.device, len(plans))
    print(f"{strategy}: {Strategy.model_validate(plans[0].strategy).about}")
    if found:
        print("found by the sweep: " + ", ".join(f"{path} {output.text(value)}" for path, value in found.items()))
    print(
        f"{len(plans)} seed(s), {count} at a time, {plans[0].target.n_train} training structures, on {plans[0].device}",
        flush=True,
    )

    show = parallel.Printer(strategy, settings.finetune.epochs)
    run_ids = {
        plan.seed: runs.start_training(
            {"system": settings.system, "foundation": settings.foundation, **plan.strategy, "epochs": plan.epochs},
            experiment=settings.tracking.experiment,
            strategy=strategy,
            seed=plan.seed,
            root=root,
            key=plan.key,
        )
        for plan in plans
    }

    def on_epoch(seed: int, row: dict[str, float]) -> None:
        show(seed, row)
        runs.log_epoch(run_ids[seed], int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})

    status = "FAILED"
    try:
        parallel.train_all(plans, folders, count, on_epoch)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for plan, folder in zip(plans, folders, strict=True):
            runs.finish_training(run_ids[plan.seed], folder, status)
    summary = collect.collect(root, strategy, settings.foundation, plans, folders, found)
    for seed, training in read_seeds(Project(root, settings), strategy, summary).items():
        outcome, effective = training.finished, training.effective
        compared = len(effective.asked.model_dump()) if effective else 0
        print(
            f"{strategy} seed {seed}: best epoch {outcome.best_epoch + 1}, {outcome.trainable} of "
            f"{outcome.parameters} parameters trained, asked = ran in {compared} points"
        )
        for text in course.comments(training.history, outcome):
            print(f"{strategy} seed {seed}: {text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
