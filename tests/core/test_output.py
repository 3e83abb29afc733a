"""What commands say while they compute: lines in a log, one line a running thing on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from retemper.core import output
output.show()
with output.progress(3, interval=float(sys.argv[1])) as say:
    for epoch in range(3):
        for seed in (1, 2):
            say(epoch + 1, f"seed {seed} epoch {epoch + 1} of 3", name=f"seed {seed}")
"""


def _in_a_terminal(script: Path, *arguments: str) -> str:
    """What a script prints where standard output is a terminal of 100 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments], stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # the terminal has gone
            break
        if not part:
            break
        text += part
    assert process.wait() == 0, text
    return text.decode()


def test_on_a_terminal_each_running_thing_has_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(SCRIPT)
    text = _in_a_terminal(tmp_path / "say.py", "0")
    last = text.rsplit("\x1b[1A", 1)[-1] + text[-2000:]
    assert "seed 1 epoch 3 of 3" in last and "seed 2 epoch 3 of 3" in last
    assert text.count("\n") < 12  # rewritten in place; as lines of a log there would be one for each epoch and seed


def test_elsewhere_lines_are_logged_every_one_or_one_in_an_interval(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(SCRIPT)

    def lines(interval: str) -> list[str]:
        command = [sys.executable, str(tmp_path / "say.py"), interval]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert lines("0") == [f"seed {seed} epoch {epoch} of 3" for epoch in (1, 2, 3) for seed in (1, 2)]
    assert lines("100") == []
