"""Stage register@S: put the models of one strategy into MLflow's model registry.

python -m pipelines.register lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.registry import register


@stage
def main(strategy: str) -> None:
    """Register every seed and write ``runs/register/<strategy>.json``."""
    print(register.describe(strategy, register.run(Project.here(), strategy)))


if __name__ == "__main__":
    main(*sys.argv[1:])
