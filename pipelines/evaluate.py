"""Stage evaluate@S: accuracy and retention of one strategy, or of the foundation itself.

python -m pipelines.evaluate naive
python -m pipelines.evaluate foundation
"""

from __future__ import annotations

import sys

from retemper import evaluate, launch
from retemper.cli import stage
from retemper.errors import unknown
from retemper.files import project_root
from retemper.settings import load_settings


@stage
def main(name: str) -> None:
    """Measure every seed of ``runs/finetune/<name>``; writes ``runs/evaluate/<name>``."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    launch.prepare(settings.finetune.device)
    if name not in (evaluate.FOUNDATION, *settings.strategies):
        raise unknown("strategy in params.yaml", name, (evaluate.FOUNDATION, *settings.strategies))
    evaluate.run(name, settings, root)


if __name__ == "__main__":
    main(*sys.argv[1:])
