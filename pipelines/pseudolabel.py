"""Stage pseudolabel: label the replay structures by the foundation; writes runs/pseudolabel/."""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.core import processes
from retemper.prepare import pseudolabel


@stage
def main() -> None:
    """Label ``runs/replay`` in batches; labels that exist under their address are used again."""
    project = Project.here()
    processes.prepare(project.settings.finetune.device)
    pseudolabel.run(project)


if __name__ == "__main__":
    main()
