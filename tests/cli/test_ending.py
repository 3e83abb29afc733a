"""How commands end: one message where the file system refuses, 75 while someone is waited for, 130 after Ctrl-C."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import ROOT

from retemper.core import files
from retemper.core.errors import RetemperError, WaitingError

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore"}


def python(code: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run `code` within `ending.handle_errors` in a process of its own."""
    body = "from retemper.core.ending import handle_errors\nwith handle_errors():\n" + textwrap.indent(
        textwrap.dedent(code), "    "
    )
    return subprocess.run(
        [sys.executable, "-c", body], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, **more
    )  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", sorted(files.ANSWERS), ids=[errno.errorcode[n] for n in sorted(files.ANSWERS)])
@pytest.mark.hostile("messages")
def test_what_a_file_system_refuses_names_the_file_and_the_way_out(tmp_path: Path, number: int) -> None:
    with pytest.raises(RetemperError) as raised, files.atomic_write(tmp_path / "a.json") as temporary:
        raise OSError(number, os.strerror(number), str(temporary))
    assert str(tmp_path / "a.json") in raised.value.what and raised.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.hostile("messages")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """The kernel's own answer (EFBIG) in a process with ``ulimit -f``."""
    done = python(
        f"from retemper.core.files import atomic_write\n"
        f"with atomic_write({str(tmp_path / 'big')!r}) as path: path.write_bytes(bytes(10**6))",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "would be larger" in done.stderr and "ulimit -f" in done.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.hostile("messages")
def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    done = python(f"open({str(tmp_path / 'runs/x')!r}, 'w')")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "is a file where a folder" in done.stderr


@pytest.mark.hostile("messages")
def test_an_error_of_the_code_itself_keeps_its_traceback() -> None:
    done = python("open('/nowhere/at/all')")
    assert "Traceback" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
@pytest.mark.hostile("users")
def test_a_user_without_an_entry_in_the_system() -> None:
    """As in a container with ``--user``: the name is the number, also for libraries that ask themselves."""
    clean = {k: v for k, v in ENVIRONMENT.items() if k not in ("LOGNAME", "USER", "LNAME", "USERNAME")}
    code = "import getpass, os\nfrom retemper.core.processes import user\nos.setgid(54321)\nos.setuid(54321)\n"
    code += "assert user() == getpass.getuser()\nprint(user())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "uid-54321", done.stderr


@pytest.mark.hostile("messages")
def test_waiting_for_someone_is_no_error() -> None:
    done = python(
        "from retemper.core.errors import WaitingError\nraise WaitingError('3 structures wait.', fix='label them')"
    )
    assert done.returncode == 75 and done.stderr == ""
    assert done.stdout.splitlines() == ["3 structures wait.", "  next:     label them"]
    assert issubclass(WaitingError, RetemperError)


@pytest.mark.hostile("kills")
def test_an_interruption_ends_workers_that_still_compute() -> None:
    """Only the parent gets the signal; its workers would go on for a minute."""
    code = """
        import time
        from retemper.core.executor import Executor, Job
        with Executor(1) as pool:
            pool.submit(Job(time.sleep, (60,), started=lambda: print("computes", flush=True)))
            list(pool.finished())
        """
    body = "from retemper.core.ending import handle_errors\nwith handle_errors():\n" + textwrap.indent(
        textwrap.dedent(code), "    "
    )
    process = subprocess.Popen(
        [sys.executable, "-c", body],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "computes\n"
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - start < 15
    assert said.strip() == "interrupted"


@pytest.mark.hostile("messages")
def test_a_lock_that_is_held_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c",
         f"import time\nfrom filelock import FileLock\nwith FileLock({str(tmp_path / 'lock')!r}):\n"
         "    print('held', flush=True)\n    time.sleep(5)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with files.locked(tmp_path / "lock", "trains the same"):
        assert "waiting for another process that trains the same" in capsys.readouterr().out
    holder.wait()
