"""Acquisition alone: explore, select and label into ``data/rounds/NNN``, without DVC, gates or a commit.

`retemper round` does the rest as well. Run it as ``python -m pipelines.acquire``.
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.core import processes


@stage
def main() -> None:
    """Make or finish the next round's folder."""
    project = Project.here()
    processes.prepare(project.settings.finetune.device)
    from retemper.active import acquire

    print(f"data/rounds/{acquire.run(project).round:03d}")


if __name__ == "__main__":
    main(*sys.argv[1:])
