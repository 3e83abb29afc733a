"""Stage sweep@S: search the settings of one strategy for accuracy and retention.

python -m pipelines.sweep lora
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.sweep import run as sweep


@stage
def main(strategy: str) -> None:
    """Work off ``sweep.trials`` trials and put the setting to use into ``runs/sweep/<strategy>/best.yaml``."""
    sweep.run(Project.here(), strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
