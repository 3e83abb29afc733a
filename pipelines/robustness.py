"""Stage robustness@S: what one strategy's models, or the foundation, do away from the test set.

python -m pipelines.robustness naive
python -m pipelines.robustness foundation
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.errors import unknown
from retemper.core.files import project_root
from retemper.records.runs import FOUNDATION


@stage
def main(name: str) -> None:
    """Measure the seeds of ``runs/finetune/<name>``; writes ``runs/robustness/<name>``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
    if name not in (FOUNDATION, *settings.strategies):
        raise unknown("strategy in params.yaml", name, (FOUNDATION, *settings.strategies))
    from retemper.evaluation.robustness import stage as project

    project.run(name, settings, root)


if __name__ == "__main__":
    main(*sys.argv[1:])
