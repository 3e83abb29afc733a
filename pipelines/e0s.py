"""Stage e0s: choose and check the atomic reference energies; writes runs/e0s/e0s.json."""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.prepare import e0s


@stage
def main() -> None:
    """Compare the ways to E0s, and take the one of ``e0s.method``."""
    e0s.run(Project.here())


if __name__ == "__main__":
    main()
