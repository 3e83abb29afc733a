"""Stage evaluate@S: accuracy and retention of one strategy, or of the foundation itself.

python -m pipelines.evaluate naive
python -m pipelines.evaluate foundation
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.errors import unknown
from retemper.core.files import project_root
from retemper.evaluation import stage as evaluate


@stage
def main(name: str) -> None:
    """Measure every seed of ``runs/finetune/<name>``; writes ``runs/evaluate/<name>``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
    if name not in (evaluate.FOUNDATION, *settings.strategies):
        raise unknown("strategy in params.yaml", name, (evaluate.FOUNDATION, *settings.strategies))
    evaluate.run(name, settings, root)


if __name__ == "__main__":
    main(*sys.argv[1:])
