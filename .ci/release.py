"""Build a release into dist/: version, changelog and tag must agree, and the wheel must work alone.

    python .ci/release.py

Status 1, with the reason, where they do not. See "A release" in CONTRIBUTING.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; its failure is the end."""
    return subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True, text=True).stdout


def version() -> str:
    """Of the package, once everything that names it agrees."""
    text = (ROOT / "platform/retemper/core/version.py").read_text()
    number = re.findall(r'__version__ = "(\d+\.\d+\.\d+)"', text)
    if len(number) != 1:
        sys.exit("platform/retemper/core/version.py: expected one version of the form 1.2.3")
    number = number[0]
    heading = re.search(r"^## (\S+) \(([^)]*)\)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if heading is None or heading[1] != number:
        sys.exit(f"CHANGELOG.md begins with {heading and heading[0]!r}, expected ## {number} (date)")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[2]):
        sys.exit(f"CHANGELOG.md: {number} has no date, but {heading[2]!r}")
    if f"\nversion: {number}\n" not in (ROOT / "CITATION.cff").read_text():
        sys.exit(f"CITATION.cff has another version than {number}")
    tags = output("git", "tag", "--points-at", "HEAD").split()
    if tags and f"v{number}" not in tags:
        sys.exit(f"this commit is tagged {', '.join(tags)}, expected v{number}")
    return number


def build(number: str) -> Path:
    """The wheel in dist/, beside the source distribution."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    output(sys.executable, "-m", "hatchling", "build")
    return ROOT / f"dist/retemper-{number}-py3-none-any.whl"


def try_alone(wheel: Path, number: str) -> None:
    """Install the wheel without anything else: does it say its version, and is it whole?"""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin/python"
        output(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
        printed = output(python, "-c", "from retemper.core.version import __version__ as v; print(v)", cwd=Path(folder))
        if printed.strip() != number:
            sys.exit(f"the installed wheel says {printed.strip()}, expected {number}")
        if not list(Path(folder).glob("lib/*/site-packages/retemper/template/strategies/base.yaml")):
            sys.exit("the wheel lacks what a project begins with (retemper/template)")


def main() -> None:
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    number = version()
    wheel = build(number)
    try_alone(wheel, number)
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}, {size:.1f} MB, Python {requires}; next: git tag v{number}, git push --tags")


if __name__ == "__main__":
    main()
