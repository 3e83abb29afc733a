"""Stage report: compare all strategies in ``runs/report/``, from the files of the other stages.

python -m pipelines.report
"""

from __future__ import annotations

import sys

from retemper import report
from retemper.cli.main import stage
from retemper.config.settings import load_settings
from retemper.core.files import project_root


@stage
def main() -> None:
    """Write HTML, Markdown, tables and plot data, and print the comparison."""
    root = project_root()
    report.write(root, load_settings(root / "params.yaml"))
    print(report.terminal_table(root))


if __name__ == "__main__":
    main(*sys.argv[1:])
