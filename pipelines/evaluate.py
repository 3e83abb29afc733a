"""Stage evaluate@S: accuracy and retention of one strategy, or of the foundation itself.

python -m pipelines.evaluate naive
python -m pipelines.evaluate foundation
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.core import processes
from retemper.evaluation import stage as evaluation


@stage
def main(name: str) -> None:
    """Measure every seed of ``runs/finetune/<name>``; writes ``runs/evaluate/<name>``."""
    project = Project.here()
    processes.prepare(project.settings.finetune.device)
    evaluation.run(project, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
