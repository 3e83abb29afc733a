"""Stage dataset: read, check, de-duplicate and split the labelled structures into ``runs/dataset``.

Run it as ``python -m pipelines.dataset``.
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core.files import project_root
from retemper.prepare.dataset import build


@stage
def main() -> None:
    """Make the training, validation and test sets and their manifest."""
    root = project_root()
    build(load_settings(root / "params.yaml"), root / "runs/dataset", root)


if __name__ == "__main__":
    main(*sys.argv[1:])
