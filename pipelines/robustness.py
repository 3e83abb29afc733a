"""Stage robustness@S: what one strategy's models, or the foundation, do away from the test set.

python -m pipelines.robustness naive
python -m pipelines.robustness foundation
"""

from __future__ import annotations

import sys

from retemper import launch
from retemper.cli import stage
from retemper.errors import unknown
from retemper.files import project_root
from retemper.results import FOUNDATION
from retemper.settings import load_settings


@stage
def main(name: str) -> None:
    """Measure the seeds of ``runs/finetune/<name>``; writes ``runs/robustness/<name>``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    launch.prepare(settings.finetune.device)
    if name not in (FOUNDATION, *settings.strategies):
        raise unknown("strategy in params.yaml", name, (FOUNDATION, *settings.strategies))
    from retemper.robustness import project

    project.run(name, settings, root)


if __name__ == "__main__":
    main(*sys.argv[1:])
