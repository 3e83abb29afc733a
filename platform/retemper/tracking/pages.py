"""What people read on MLflow's pages: names, descriptions, who and what made a run. Nothing is found by any of it."""

from __future__ import annotations

import re

from retemper.core import processes

SYSTEM = "retemper.system"  # tag of every run: several systems on one server are told apart by it
NOTE = "mlflow.note.content"  # the description of an experiment, a run or a logged model, in Markdown
EXPERIMENT = (  # one line: MLflow folds the rest away
    "One run a seed. Metrics `valid.*`: validation sets, by epoch; `target.*`, `retention.*`, `drift.*`: test sets."
)


def run_name(system: str, *parts: object) -> str:
    """``nacl naive seed 1``."""
    return " ".join([system, *map(str, parts)])[:250]


def model_name(system: str, strategy: str, seed: int) -> str:
    """``nacl-naive-seed-1``, without what MLflow takes in no name of a logged model."""
    return re.sub(r"[/:.%\"']", "_", f"{system}-{strategy}-seed-{seed}")


def page_tags(system: str, stage: str, note: str) -> dict[str, str]:
    """System, source, user and description of a run.

    Parameters
    ----------
    stage
        That made it, as `dvc repro` calls it.
    """
    source = {"mlflow.source.name": stage, "mlflow.source.type": "LOCAL"}
    return {SYSTEM: system, "mlflow.user": processes.user(), **source, NOTE: note}


def training_tags(system: str, foundation: str, strategy: str, seed: int) -> dict[str, str]:
    """`page_tags` of a training."""
    note = (
        f"**{system}**: {foundation} fine-tuned by the strategy `{strategy}`, seed {seed}. "
        f"Files: `runs/finetune/{strategy}/seed-{seed}`."
    )
    return page_tags(system, f"finetune@{strategy}", note)
