"""Acquisition alone: explore, select and label into ``data/rounds/NNN``, without DVC, gates or a commit.

`retemper round` does the rest as well. Run it as ``python -m pipelines.acquire``.
"""

from __future__ import annotations

import sys

from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core import processes
from retemper.core.files import project_root


@stage
def main() -> None:
    """Make or finish the next round's folder."""
    root = project_root()
    settings = load_settings(root / "params.yaml")
    processes.prepare(settings.finetune.device)
    from retemper.active import acquire, campaign, lock

    with lock.alone(root):
        print(acquire.acquire(settings, root, campaign.next_round(root)))


if __name__ == "__main__":
    main(*sys.argv[1:])
