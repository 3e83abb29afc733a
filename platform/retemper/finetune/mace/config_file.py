"""``mace.yaml``: the settings of a training for MACE's own command, and what MACE does otherwise with them."""

from __future__ import annotations

from pathlib import Path

import yaml

from retemper.core import weight_files
from retemper.finetune.plan import Flags, Plan
from retemper.models.head_names import name_of


def write(path: Path, flags: Flags, plan: Plan, unflagged: list[str]) -> None:
    """Settings for ``mace_run_train --config``, to run the same without us; `unflagged` has no setting there."""
    strategy, note = plan.strategy, "# mace_run_train --config mace.yaml\n"
    for lacking in unflagged:
        note += f"# {lacking}: MACE has no setting for it and builds another model (retemper.models.architecture)\n"
    if weight_files.described(plan.foundation):
        note += f"# foundation_model: MACE opens pickles alone; write one with retemper convert {plan.foundation} OUT\n"
    if strategy.replay is None and strategy.start == "foundation":
        note += "# E0s: mace-torch 0.3.16 overwrites these by the foundation's (docs/traps.md)\n"
    if strategy.freeze is not None:
        note += "# freeze: where the model embeds charge or spin, MACE goes on training that; here it is frozen\n"
    if strategy.replay is not None and plan.replay is not None:
        steps, mace_steps = (
            n // plan.batch_size for n in (plan.target.n_train, sum(data.n_train for data in plan.heads.values()))
        )
        note += (
            f"# with this file an epoch of MACE has {mace_steps} steps of {plan.batch_size} frames of a head; those\n"
            f"# of this run had {steps} of {plan.batch_size} target and {strategy.replay.batch_size} replay frames "
            "(retemper.finetune.mace.loaders)\n"
        )
        note += f"# replay weight {strategy.replay.weight:g}: no setting of MACE works (retemper.finetune.mace.loss)\n"
    for head in plan.kept:
        note += (
            f"# head {name_of(head)}: MACE starts it as head {plan.foundation_head} of the foundation; here it started "
            f"as {head} (retemper.models.head_weights)\n"
        )
    path.write_text(note + yaml.safe_dump({k: v for k, v in flags.items() if v is not None}, sort_keys=False))
