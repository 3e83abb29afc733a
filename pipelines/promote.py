"""Stage promote: judge the registered models and move the aliases that the gates allow.

python -m pipelines.promote
"""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.promotion import promote


@stage
def main() -> None:
    """Write ``runs/promote/verdict.json`` and ``verdict.md`` and print the decision."""
    print(promote.describe(promote.run(Project.here())))


if __name__ == "__main__":
    main()
