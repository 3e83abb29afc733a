"""Stage report: compare all strategies in ``runs/report/``, from the files of the other stages.

python -m pipelines.report
"""

from __future__ import annotations

import sys

from retemper import report
from retemper.cli.main import stage
from retemper.config.project import Project


@stage
def main() -> None:
    """Write HTML, Markdown, tables and plot data, and print the comparison."""
    project = Project.here()
    report.run(project)
    print(report.terminal_table(project))


if __name__ == "__main__":
    main(*sys.argv[1:])
