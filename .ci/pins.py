"""Ask OSV (https://osv.dev) for known vulnerabilities of the pins in constraints.txt: one request for all of them.

    python .ci/pins.py [constraints.txt] [--accepted .ci/accepted.txt] [--service URL]

Status 1 where a pin has one that is not accepted. Where the service does not answer (no network) it says
"not checked" and the status is 0: what CI can reach is no property of the code. A line of the file of accepted ones is
an identifier and the reason, `GHSA-... why it does not matter here`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

SERVICE = "https://api.osv.dev/v1/querybatch"


def pins(path: Path) -> list[tuple[str, str]]:
    """Name and version of each line ``name==version``."""
    return re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;#]+)", path.read_text(), re.MULTILINE)


def accepted(path: Path) -> dict[str, str]:
    """Reason by identifier; a line without a reason is an error."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.strip().partition(" ")
            if not reason:
                sys.exit(f"{path}: {identifier} is accepted without a reason")
            found[identifier] = reason
    return found


def known(service: str, packages: list[tuple[str, str]]) -> list[list[str]]:
    """Identifiers of the vulnerabilities of each package, in their order.

    Raises
    ------
    OSError, ValueError
        The service does not answer, or with something else.
    """
    ecosystem = "PyPI"
    queries = [{"package": {"name": name, "ecosystem": ecosystem}, "version": version} for name, version in packages]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(service, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        results = json.load(answer).get("results", [])
    if len(results) != len(packages):
        raise ValueError(f"{len(results)} answers to {len(packages)} questions")
    return [[one["id"] for one in result.get("vulns", [])] for result in results]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python .ci/pins.py", description=__doc__)
    here = Path(__file__).resolve().parent
    parser.add_argument("constraints", type=Path, nargs="?", default=here.parent / "constraints.txt")
    parser.add_argument("--accepted", type=Path, default=here / "accepted.txt")
    parser.add_argument("--service", default=SERVICE)
    options = parser.parse_args()
    packages, fine = pins(options.constraints), accepted(options.accepted)
    if not packages:
        sys.exit(f"{options.constraints} pins nothing (lines name==version)")
    try:
        found = known(options.service, packages)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        print(f"pins: not checked for known vulnerabilities: {options.service}: {error}")
        return 0
    bad = 0
    for (name, version), identifiers in zip(packages, found, strict=True):
        for identifier in identifiers:
            if identifier in fine:
                print(f"pins: {name}=={version}: {identifier} accepted: {fine[identifier]}")
            else:
                bad += 1
                print(f"pins: {name}=={version} has https://osv.dev/{identifier}")
    print(f"pins: {len(packages)} checked, {bad} known vulnerabilities that are not accepted")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
