"""What CI checks beside the code: secrets in tracked files, vulnerabilities of the pins, MACE's newest release."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from servers import free_ports

# The form in which OSV answers one request, for jinja2 2.4.1 (CVE-2019-10906), numpy 2.4.6 and torch 2.13.0.
ANSWER = {"results": [{"vulns": [{"id": "GHSA-462w-v97r-4m45", "modified": "2023-03-10T05:23:41.874079Z"},
                                 {"id": "PYSEC-2019-217", "modified": "2021-11-22T04:57:52.862665Z"}]},
                      {}, {}]}  # fmt: skip


def hexadecimal(length: int) -> str:
    return secrets.token_hex(length // 2)


PLANTED = {
    "a password": lambda: f'password = "{secrets.token_urlsafe(12)}"',
    "a key of AWS": lambda: "AKIA" + secrets.token_hex(8).upper(),
    "a private key": lambda: "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a token of GitHub": lambda: "ghp_" + hexadecimal(36),
    "a user in an address": lambda: f"https://ada:{secrets.token_urlsafe(9)}@mlflow.example.org",
    "a hash that nothing explains": lambda: f'thing = "{hexadecimal(40)}"',
}


@pytest.mark.hostile("trust")
@pytest.mark.parametrize("what", PLANTED)
def test_planted_secrets_are_found(what: str, tmp_path: Path) -> None:
    pytest.importorskip("detect_secrets")
    (tmp_path / "settings.py").write_text(f"# settings\n{PLANTED[what]()}\n")
    done = scan(tmp_path / "settings.py")
    assert done.returncode == 1 and "settings.py:2" in done.stdout


def test_sums_of_the_catalogue_are_no_secrets() -> None:
    pytest.importorskip("detect_secrets")
    assert scan(ROOT / "foundations/foundations.yaml", ROOT / "params.yaml").returncode == 0


def scan(*paths: Path) -> subprocess.CompletedProcess[str]:
    """As ``make lint`` does."""
    command = [sys.executable, "-m", "detect_secrets.pre_commit_hook", "--baseline", ".secrets.baseline"]
    return subprocess.run([*command, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def service() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers as OSV did; its address and what it was asked."""
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

        def log_message(self, *_: object) -> None:
            """Nothing in the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/querybatch", asked
    server.shutdown()
    thread.join()
    server.server_close()


def check(folder: Path, service: str, accepted: str = "") -> subprocess.CompletedProcess[str]:
    """``.ci/pins.py`` on three pins."""
    (folder / "constraints.txt").write_text("jinja2==2.4.1\n# a comment\nnumpy==2.4.6\ntorch==2.13.0\n")
    (folder / "accepted.txt").write_text(accepted)
    command = [sys.executable, str(ROOT / ".ci/pins.py"), "constraints.txt", "--accepted", "accepted.txt"]
    return subprocess.run([*command, "--service", service], cwd=folder, capture_output=True, text=True)


@pytest.mark.hostile("trust")
def test_a_pin_with_a_known_vulnerability_fails(tmp_path: Path, service: tuple[str, list[bytes]]) -> None:
    address, asked = service
    done = check(tmp_path, address)
    assert done.returncode == 1 and "jinja2==2.4.1 has https://osv.dev/GHSA-462w-v97r-4m45" in done.stdout
    assert "3 checked, 2 known" in done.stdout
    assert [query["version"] for query in json.loads(asked[0])["queries"]] == ["2.4.1", "2.4.6", "2.13.0"]


def test_an_accepted_vulnerability_needs_a_reason(tmp_path: Path, service: tuple[str, list[bytes]]) -> None:
    address, _ = service
    one = "GHSA-462w-v97r-4m45 templates are ours\n"
    assert check(tmp_path, address, one).returncode == 1
    done = check(tmp_path, address, one + "PYSEC-2019-217 templates are ours\n")
    assert done.returncode == 0 and "accepted: templates are ours" in done.stdout
    assert "without a reason" in check(tmp_path, address, "PYSEC-2019-217\n").stderr


def test_without_an_answer_nothing_is_checked(tmp_path: Path) -> None:
    done = check(tmp_path, f"http://127.0.0.1:{free_ports(1)[0]}/v1/querybatch")
    assert done.returncode == 0 and "not checked" in done.stdout


def test_every_pin_is_read() -> None:
    """The lines of constraints.txt that are not comments are pins that the check understands."""
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        from pins import pins
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(pins(ROOT / "constraints.txt")) == len(lines) > 100


def index(folder: Path, *versions: str) -> str:
    """A package index with these versions of mace-torch, as a folder."""
    wheels = [f"mace_torch-{version}-py3-none-any.whl" for version in versions]
    (folder / "mace-torch").mkdir(parents=True)
    links = "".join(f'<a href="{wheel}">{wheel}</a>' for wheel in wheels)
    (folder / "mace-torch/index.html").write_text(f"<html><body>{links}</body></html>")
    return folder.as_uri()


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        (("0.3.15", "0.3.16"), "0.3.16 is the newest one, and pinned"),
        ((), "not checked"),
        (("0.3.17",), "0.3.17, pinned"),
    ],
)
def test_the_newest_mace_is_asked_for(versions: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A newer one is tried, which fails here: the index of this test has its name alone. The others are no failure."""
    settings = {
        "PIP_INDEX_URL": index(tmp_path / "index", *versions),
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
    }
    for part in ("newest.py", "constraints.txt"):
        place = tmp_path / (".ci" if part == "newest.py" else "")
        place.mkdir(exist_ok=True)
        shutil.copy2(ROOT / place.relative_to(tmp_path) / part, place / part)
    command = [sys.executable, ".ci/newest.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True)
    assert says in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == ("0.3.17" not in versions)
