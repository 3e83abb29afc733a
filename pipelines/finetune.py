"""Stage finetune@S: train one strategy with every seed, side by side.

python -m pipelines.finetune lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.finetune import stage as finetune


@stage
def main(strategy: str) -> None:
    """Train, track, and put models, histories and proofs into ``runs/finetune/<strategy>``."""
    project = Project.here()
    print(finetune.describe(project, finetune.run(project, strategy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
