"""Requests that would stop a shared server, or make it say nonsense: answered as 4xx, and the server lives on."""

from __future__ import annotations

import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from ase import Atoms
from ase.build import bulk, molecule
from matscipy.neighbours import neighbour_list

import retemper
from retemper.core.errors import RetemperError
from retemper.data import crowding
from retemper.models import predict
from retemper.registry import serve

WATER = {"numbers": [8, 1, 1], "positions": [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}
SALT = {"numbers": [11, 17], "positions": [[0, 0, 0], [2.8, 0, 0]]}


def boxed(length: float, **more: Any) -> dict[str, Any]:
    """Two ions in a cube of this edge (A), scaled with it."""
    places = [[0, 0, 0], [0.5 * length] * 3]
    return {**SALT, "positions": places, "cell": (length * np.eye(3)).tolist(), **more}


def clump(number: int, spread: float, **more: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"numbers": [1] * number, "positions": random.uniform(0, spread, (number, 3)).tolist(), **more}


def grid(number: int, step: float) -> dict[str, Any]:
    """number^3 atoms on a cubic grid."""
    places = step * np.stack(np.meshgrid(*[np.arange(number)] * 3), axis=-1).reshape(-1, 3)
    return {"numbers": [11] * number**3, "positions": places.tolist()}


REFUSED: dict[str, tuple[Any, str]] = {
    "a cell of 0.01 A": (boxed(0.01), "has collapsed: its cell has a height of 0.01 A"),
    "a cell of 0.1 A": (boxed(0.1), "has collapsed"),
    "a cell of 1e-300 A": (boxed(1e-300), "its cell"),
    "a cell of 0.6 A": (boxed(0.6), "has collapsed: its cell has 0.108 A^3 an atom"),
    "a cell of 1 A": (boxed(1.0), "has collapsed: two atoms are"),
    "a thin cell": (boxed(5.6, cell=[[5.6, 0, 0], [0, 5.6, 0], [0, 0, 0.01]]), "has a height of 0.01 A"),
    "a skewed cell": (boxed(5.6, cell=[[5.6, 0, 0], [5.6, 0.01, 0], [0, 0, 5.6]]), "has collapsed"),
    "a flat cell": (boxed(5.6, cell=[[5.6, 0, 0], [5.6, 0, 0], [0, 0, 5.6]]), "does not span"),
    "a thin wire": (boxed(5.6, cell=[[0.01, 0, 0], [0, 9, 0], [0, 0, 9]], pbc=[True, False, False]), "has collapsed"),
    "atoms at one place": ({**SALT, "positions": [[0, 0, 0], [0, 0, 0]]}, "two atoms are 0 A apart"),
    "atoms through the boundary": (
        {**SALT, "positions": [[0.01, 0, 0], [8.99, 0, 0]], "cell": (9 * np.eye(3)).tolist()},
        "two atoms are 0.02 A apart",
    ),
    "atoms far out at one place": (
        {**SALT, "positions": [[0, 0, 0], [9e5, 9e5, 9e5]], "cell": (9 * np.eye(3)).tolist()},
        "has collapsed: two atoms are",
    ),
    "a clump of 5000": (clump(5000, 1.0), "has collapsed"),
    "a clump in a cell": (clump(2000, 2.0, cell=(50 * np.eye(3)).tolist()), "has collapsed"),
    "too many atoms": (grid(28, 3.0), "a request may have at most"),
    "too many pairs": (grid(20, 1.4), "pairs of atoms within"),
    "an element that it lacks": ({**SALT, "numbers": [92, 17]}, "does not know atomic numbers [92]"),
    "no atoms": ({"numbers": [], "positions": []}, "expected [n_atoms, 3]"),
    "infinite": ({**SALT, "positions": [[0, 0, 0], [1e400, 0, 0]]}, "is not finite"),
    "text": ({**SALT, "positions": "rm -rf"}, ""),
    "a charge that is none": ({**WATER, "charge": "plus"}, "no clear total charge"),
    "a negative element": ({**SALT, "numbers": [-1, 17]}, "does not know"),
    "no positions": ({"numbers": [8]}, "positions"),
}
BODIES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "application/json"),
    "brackets without end": (b"[" * 100_000, "application/json"),
    "objects within each other": (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "application/json; charset=utf-8"),
    "nothing": (b"", "application/json"),
    "another type": (b"<xml/>", "text/xml"),
    "a list": (b"[1, 2]", "application/json"),
    "not UTF-8": (b"\xff\xfe", "application/json"),
    "a pickle": (b"\x80\x04cposix\nsystem\n(S'true'\ntR.", "application/octet-stream"),
    "parquet that is none": (b"PAR1", "application/x-parquet"),
}


def ask(uri: str, body: bytes, kind: str = "application/json", timeout: float = 120.0) -> tuple[int, str]:
    request = urllib.request.Request(f"{uri}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rows(*given: Any) -> bytes:
    return json.dumps({"dataframe_records": given}).encode()


@pytest.fixture(scope="module")
def server(registered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``retemper serve salt/1``, as a process of its own."""
    (port,) = servers.free_ports(1)
    environment = {name: value for name, value in os.environ.items() if name not in servers.NAMES}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-W", "ignore", "-m", "retemper", "serve", "salt/1", "--port", str(port)]
    uri = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("serve") / "log"
    with servers.running(command, registered, log, environment) as process:
        servers.wait_for(lambda: servers.answers(f"{uri}/ping"), process)
        yield uri


@pytest.fixture(scope="module")
def right(registered: Path) -> float:
    """The energy of water, eV."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        calculator = retemper.load("salt/1", device="cpu", root=registered)
    return float(calculator.get_potential_energy(Atoms(WATER["numbers"], WATER["positions"])))


def answers_rightly(uri: str, right: float) -> None:
    status, text = ask(uri, rows(WATER))
    assert status == 200 and json.loads(text)["predictions"][0]["energy"] == pytest.approx(right, abs=1e-6)


@pytest.mark.hostile("server")
@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_cannot_be_is_refused_and_the_server_lives(what: str, server: str, right: float) -> None:
    row, message = REFUSED[what]
    status, text = ask(server, rows(WATER, row))
    assert 400 <= status < 500, text[-500:]
    assert message in json.loads(text)["message"]
    answers_rightly(server, right)


@pytest.mark.hostile("server")
@pytest.mark.parametrize("what", BODIES)
def test_a_body_that_is_none_is_refused(what: str, server: str, right: float) -> None:
    body, kind = BODIES[what]
    status, text = ask(server, body, kind)
    assert 400 <= status < 500, text[-500:]
    answers_rightly(server, right)


@pytest.mark.hostile("server")
@pytest.mark.parametrize("said", [True, False])
def test_a_body_that_is_too_large_is_refused(said: bool, server: str, right: float) -> None:
    """By what it says of its length, and by what comes of one that says nothing."""
    body: Any = b" " * (serve.LARGEST + 1) if said else iter([b" " * 1_000_000] * 25)
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (ConnectionError, urllib.error.URLError):  # answered and closed while we were still sending
        status = 413
    assert status == 413
    answers_rightly(server, right)


@pytest.mark.hostile("server")
def test_many_at_once_are_answered_rightly_or_told_to_wait(server: str, right: float) -> None:
    found: list[tuple[int, str]] = []
    body = rows(WATER, grid(6, 2.5))
    threads = [threading.Thread(target=lambda: found.append(ask(server, body))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24 and {status for status, _ in found} <= {200, 429}
    energies = [json.loads(text)["predictions"][0]["energy"] for status, text in found if status == 200]
    assert energies and np.abs(np.subtract(energies, right)).max() < 1e-6
    answers_rightly(server, right)


# ------------------------------------------------------------------ counting without a list


@pytest.mark.parametrize("cutoff", [3.01, 5.97])
@pytest.mark.parametrize("kind", ["crystal", "supercell", "molecule", "sheet", "wire", "tilted"])
def test_pairs_are_counted_as_they_are_listed(kind: str, cutoff: float) -> None:
    made = {
        "crystal": bulk("NaCl", "rocksalt", a=5.6),
        "supercell": bulk("Cu") * (3, 3, 3),
        "molecule": molecule("C6H6"),
        "sheet": Atoms("C2", [[0, 0, 0], [1.4, 0, 0]], cell=[2.4, 4, 0], pbc=[True, True, False]),
        "wire": Atoms("C", cell=[1.3, 0, 0], pbc=[True, False, False]),
        "tilted": Atoms("Na", cell=[[3, 0, 0], [2.9, 1.5, 0], [0, 0, 4]], pbc=True),
    }
    atoms = made[kind]
    atoms.rattle(0.03)
    open_box = atoms.copy()
    for axis in np.flatnonzero(~atoms.pbc):
        open_box.center(vacuum=30.0, axis=int(axis))
    distances = neighbour_list("d", open_box, cutoff)
    found = crowding.count(atoms, cutoff)
    assert found.pairs == len(distances)
    assert found.distance == pytest.approx(distances.min(), abs=1e-9)


@pytest.mark.hostile("server")
@pytest.mark.parametrize("length", [1e-6, 0.01, 0.1])
def test_a_collapsed_cell_does_not_fill_the_memory_of_a_pipeline(length: float, tiny_model: Path) -> None:
    row = boxed(length)
    frame = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=True)
    with pytest.raises(RetemperError, match=r"frame 0 \(NaCl\).*neighbours"):
        predict.predict(tiny_model, [frame])
