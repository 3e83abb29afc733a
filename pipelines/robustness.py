"""Stage robustness@S: what one strategy's models, or the foundation, do away from the test set.

python -m pipelines.robustness naive
python -m pipelines.robustness foundation
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.core import processes
from retemper.evaluation.robustness import stage as robustness


@stage
def main(name: str) -> None:
    """Measure the seeds of ``runs/finetune/<name>``; writes ``runs/robustness/<name>``."""
    project = Project.here()
    processes.prepare(project.settings.finetune.device)
    robustness.run(project, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
