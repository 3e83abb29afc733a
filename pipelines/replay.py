"""Stage replay: choose pretraining structures to replay; writes runs/replay/."""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.core import processes
from retemper.prepare import replay


@stage
def main() -> None:
    """Choose from ``replay.pools``; keep structures apart for retention where no file is named for it."""
    project = Project.here()
    processes.prepare(project.settings.finetune.device)
    replay.run(project)


if __name__ == "__main__":
    main()
