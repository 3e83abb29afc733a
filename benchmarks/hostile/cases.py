"""The hostile cases of the tests, counted by kind, and how many hold; writes the table of ``docs/hostile.md``.

    python -m benchmarks.hostile.cases            # run them all (slow ones too) and print the table
    python -m benchmarks.hostile.cases --write    # and put it into docs/hostile.md; `make docs`
    python -m benchmarks.hostile.cases --quick    # the slow ones are left out, and counted as not tried

A case is a test with the marker ``hostile(kind)``, each set of its parameters one. What a kind is stands in `KINDS`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/hostile.md"
BEGIN, END = "<!-- cases: written by `make docs` -->", "<!-- end of cases -->"
KINDS = {
    "inputs": "what a stage depends on and DVC is not told: named files, code, defaults; experiments, leftovers",
    "promotion": "gates and aliases: misspelt and missing metrics, standing champions, the same run again",
    "settings": "what YAML bends, limits that are no numbers, keys twice, values that fail after the work",
    "data": "labels and structures: weights of frames, leaks between sets, absurd cells and positions",
    "stress": "sign, convention, order of components, absurd values; what nothing tests",
    "caches": "flipped bits, truncated and foreign files in caches, checkpoints and results",
    "registry": "copied, moved, broken, locked, unreachable stores; runs and versions that are registered again",
    "trust": "code in weights, tags, names of calculators, scratch folders; secrets that travel",
    "server": "requests that cannot or must not be computed",
    "network": "breaks, pages in the place of files, files that changed, hosts and processes that do not answer",
    "messages": "what a person is told when something is wrong",
    "kills": "SIGKILL and Ctrl-C anywhere",
    "users": "two processes, users or projects at once",
}


def kind_of(item: pytest.Item) -> str | None:
    """Kind of a test; none without the marker. An unknown kind is an error."""
    marker = item.get_closest_marker("hostile")
    if marker is None:
        return None
    if len(marker.args) != 1 or marker.args[0] not in KINDS:
        raise pytest.UsageError(f"{item.nodeid}: hostile{marker.args}: the kinds are {', '.join(KINDS)}")
    return str(marker.args[0])


def count(items: Iterable[pytest.Item]) -> Counter[str]:
    """Cases by kind."""
    return Counter(kind for item in items if (kind := kind_of(item)) is not None)


class Outcomes:
    """A plugin of pytest that runs hostile cases alone and notes how they end."""

    def __init__(self, quick: bool = False) -> None:
        self.quick = quick
        self.kinds: dict[str, str] = {}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self.kinds = {item.nodeid: kind for item in items if (kind := kind_of(item)) is not None}
        if self.quick:
            self.outcomes = {item.nodeid: "skipped" for item in items if item.get_closest_marker("slow")}
        tried = [item for item in items if item.nodeid in self.kinds and item.nodeid not in self.outcomes]
        config.hook.pytest_deselected(items=[item for item in items if item not in tried])
        items[:] = tried

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worse = {"passed": 0, "skipped": 1, "failed": 2}
        before = self.outcomes.get(report.nodeid, "passed")
        self.outcomes[report.nodeid] = max(before, report.outcome, key=lambda outcome: worse[outcome])

    def table(self) -> str:
        """Markdown: cases, how many hold, and how many this machine could not try."""
        rows = ["| kind | what is tried | cases | held | not tried here |", "|---|---|---|---|---|"]
        total: Counter[str] = Counter()
        for kind, about in KINDS.items():
            own = Counter(self.outcomes[test] for test, its in self.kinds.items() if its == kind)
            total += own
            rows.append(f"| {kind} | {about} | {own.total()} | {own['passed']} | {own['skipped']} |")
        rows.append(f"| all | | {total.total()} | {total['passed']} | {total['skipped']} |")
        return "\n".join(rows)


def written(page: str) -> dict[str, tuple[int, int]]:
    """Cases and how many held, by kind, as the page says."""
    inside = page.partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| ([a-z]+) \|.*\| (\d+) \| (\d+) \| \d+ \|$", inside, re.MULTILINE)
    return {kind: (int(cases), int(held)) for kind, cases, held in rows}


def write(table: str, path: Path = PAGE) -> None:
    """Put `table` between the marks of the page."""
    before, _, rest = path.read_text().partition(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile.cases", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/hostile.md")
    parser.add_argument("--quick", action="store_true", help="leave the slow ones out")
    parser.add_argument("paths", nargs="*", default=[str(ROOT / "tests")], help="tests; default: all")
    options = parser.parse_args(arguments)
    outcomes: Any = Outcomes(options.quick)
    status = pytest.main([*options.paths, "-q", "-m", "", "-p", "no:xdist"], plugins=[outcomes])
    print(outcomes.table())
    if options.write:
        write(outcomes.table())
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
