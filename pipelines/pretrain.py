"""Pretrain an embedded foundation again, and write its model card.

    python -m pipelines.pretrain mini          # train (killed, it goes on), then the card
    python -m pipelines.pretrain mini card     # the card alone, from foundations/mini.model

The structures and labels in foundations/pretraining/ are kept in the repository; they are
made by foundations/pretraining/structures.py in an environment of its own. Which of them, and how long, says
foundations/pretraining/generations.yaml.
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.core import processes
from retemper.core.files import project_root
from retemper.models import library


@stage
def main(name: str, what: str = "all") -> None:
    """Train, keep the structures for replay and retention, and evaluate on the held-out sets."""
    root = project_root()
    processes.prepare()
    if what == "all":
        library.import_mace()
        from retemper.finetune.mace.pretrain import keep, pretrain

        keep(name, pretrain(name, root), root)
    from retemper.evaluation.foundation_card import write_card

    print(write_card(name, root))


if __name__ == "__main__":
    main(*sys.argv[1:])
