"""The contract of the seam to MACE (tests/finetune/test_contract.py) against the newest mace-torch of the index.

    python .ci/newest.py [--version 0.3.17] [-- further arguments of pytest]

Its environment, .cache/newest, has that mace-torch and what it needs anew; everything else, torch among it, is what is
installed here. Where the newest one is the pinned one, or the index does not answer, it says so and the status is 0.
Else the status is pytest's: `make newest` may fail, and tells what a new release of MACE breaks before it is pinned.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "mace-torch"
FOLDER = ROOT / ".cache/newest"
TESTS = "tests/finetune/test_contract.py"


def pinned() -> str:
    """The version in constraints.txt."""
    return re.findall(rf"^{PACKAGE}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]


def newest() -> str | None:
    """The newest version of the index that pip is set to; None where that does not answer."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.match(rf"{PACKAGE} \((\S+)\)", done.stdout)
    return found[1] if done.returncode == 0 and found else None


def environment(version: str) -> Path:
    """The Python of an environment over this one, with another mace-torch in front.

    Raises
    ------
    subprocess.CalledProcessError
        It cannot be installed with the versions of constraints.txt; pip says why.
    """
    venv.create(FOLDER, clear=True, with_pip=True, symlinks=True)
    names = {"base": str(FOLDER), "platbase": str(FOLDER)}
    site = Path(sysconfig.get_path("purelib", "venv", names))
    below = sysconfig.get_path("purelib")
    (site / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
    others = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if PACKAGE not in line]
    (FOLDER / "constraints.txt").write_text("\n".join(others))
    python = FOLDER / "bin/python"
    options = ["install", "-q", "--disable-pip-version-check", "-c", str(FOLDER / "constraints.txt")]
    subprocess.run([python, "-m", "pip", *options, f"{PACKAGE}=={version}"], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(prog="python .ci/newest.py", description=__doc__)
    parser.add_argument("--version", help="instead of the newest one")
    parser.add_argument("rest", nargs="*", help="arguments of pytest")
    options = parser.parse_args()
    version = options.version or newest()
    if version is None:
        print(f"newest: not checked, the package index does not say which {PACKAGE} there are")
        return 0
    if version == pinned():
        print(f"newest: {PACKAGE} {version} is the newest one, and pinned: nothing to try")
        return 0
    print(f"newest: {PACKAGE} {version}, pinned is {pinned()}", flush=True)
    python = environment(version)
    seen = "import mace, torch; print('newest: mace', mace.__version__, mace.__file__, 'torch', torch.__version__)"
    subprocess.run([python, "-c", seen], check=True, cwd=ROOT)
    return subprocess.run([python, "-m", "pytest", *(options.rest or [TESTS])], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
