"""Stage inputs: what decides each stage's numbers, for DVC to compare; writes runs/inputs/<stage>.json.

It runs every time, in about a second, and names what changed. Alone, it tells what `dvc repro` would run again:

python -m pipelines.inputs && dvc status
"""

from __future__ import annotations

from retemper.cli.main import stage
from retemper.config.project import Project
from retemper.prepare import inputs


@stage
def main() -> None:
    """Write settings, contents of files and code of every stage, and print which changed."""
    for line in inputs.run(Project.here()):
        print(f"changed for {line}")


if __name__ == "__main__":
    main()
