"""Stage dataset: read, check, de-duplicate and split the labelled structures into ``runs/dataset``.

Run it as ``python -m pipelines.dataset``.
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.prepare import dataset


@stage
def main() -> None:
    """Make the training, validation and test sets and their manifest."""
    dataset.run(Project.here())


if __name__ == "__main__":
    main(*sys.argv[1:])
