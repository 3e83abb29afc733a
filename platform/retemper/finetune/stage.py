"""The finetune stage: one strategy trained with every seed, side by side, tracked, and gathered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from retemper.config.project import Project
from retemper.config.strategies import in_words
from retemper.core import processes
from retemper.core.output import log, progress
from retemper.finetune import collect, live, parallel, planning
from retemper.finetune.plan import Plan
from retemper.records import course
from retemper.records.runs import read_seeds
from retemper.records.sweep import best_settings
from retemper.records.training import TrainingSummary
from retemper.tracking import runs


def run(project: Project, strategy: str) -> TrainingSummary:
    """Train, track, and put models, histories and proofs into ``runs/finetune/<strategy>``.

    Finished trainings are found again, those that were killed go on.

    Raises
    ------
    RetemperError
        The sweep has not run, what a plan needs is missing, or a training failed.
    """
    finetune = project.settings.finetune
    processes.prepare(finetune.device)
    point = best_settings(project, strategy)
    plans = planning.plans(project, strategy, point)
    folders = [project.training(plan.key) for plan in plans]
    count = parallel.workers(finetune.workers, finetune.device, len(plans))
    log.info(f"{strategy}: {plans[0].strategy.about}")
    if point:
        log.info("found by the sweep: " + ", ".join(f"{path} {in_words(value)}" for path, value in point.items()))
    log.info(
        f"{len(plans)} seed(s), {count} at a time, {plans[0].target.n_train} training structures, on {plans[0].device}"
    )
    further = project.settings.replay.heads
    if further:
        kept = "kept alive" if plans[0].kept else "not kept: this strategy replays nothing"
        log.info(f"further heads of the foundation, {', '.join(further)}: {kept}")
    by_seed = {plan.seed: project.training(plan.trained.key) for plan in plans}
    live.write(project, strategy, by_seed)
    with _tracked(project, strategy, plans, folders) as run_ids, progress(finetune.epochs, interval=0) as say:

        def on_epoch(seed: int, row: dict[str, float]) -> None:
            line = parallel.line(strategy, seed, row, finetune.epochs)
            say(int(row["epoch"]) + 1, line, name=f"seed {seed}")
            live.write(project, strategy, by_seed)
            runs.log_epoch(run_ids[seed], int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})

        parallel.train_all(plans, folders, count, on_epoch)
    return collect.collect(project, strategy, plans, folders, point)


@contextmanager
def _tracked(
    project: Project, strategy: str, plans: Sequence[Plan], folders: Sequence[Path]
) -> Iterator[dict[int, str | None]]:
    """Yield the run in MLflow of every seed; each is closed as the block ends."""
    settings = project.settings
    run_ids = {
        plan.seed: runs.start_training(
            {"system": settings.system, "foundation": settings.foundation}
            | {**plan.strategy.model_dump(), "epochs": plan.epochs},
            experiment=settings.tracking.experiment,
            system=settings.system,
            strategy=strategy,
            seed=plan.seed,
            root=project.root,
            key=plan.key,
        )
        for plan in plans
    }
    status = "FAILED"
    try:
        yield run_ids
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for plan, folder in zip(plans, folders, strict=True):
            runs.finish_training(run_ids[plan.seed], folder, status)


def describe(project: Project, summary: TrainingSummary) -> str:
    """What the trainings of a strategy came to, in a few lines."""
    lines = []
    for seed, training in read_seeds(project, summary.strategy, summary).items():
        outcome, effective = training.finished, training.effective
        compared = len(effective.asked.model_dump()) if effective else 0
        texts = [
            f"best epoch {outcome.best_epoch + 1}, {outcome.trainable} of {outcome.parameters} parameters trained, "
            f"asked = ran in {compared} points",
            *course.comments(training.history, outcome),
            *course.along_the_line(training.walk),
        ]
        lines += [f"{summary.strategy} seed {seed}: {text}" for text in texts]
    return "\n".join(lines)
