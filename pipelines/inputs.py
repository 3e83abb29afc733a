"""Stage inputs: what decides each stage's numbers, for DVC to compare; writes runs/inputs/<stage>.json.

It runs every time, in about a second, and names what changed. Alone, it tells what `dvc repro` would run again:

python -m pipelines.inputs && dvc status
"""

from __future__ import annotations

from retemper import inputs
from retemper.cli import stage
from retemper.files import project_root
from retemper.settings import load_settings


@stage
def main() -> None:
    """Write settings, contents of files and code of every stage, and print which changed."""
    root = project_root()
    for line in inputs.write(root, load_settings(root / "params.yaml")):
        print(f"changed for {line}")


if __name__ == "__main__":
    main()
