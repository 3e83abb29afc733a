"""`retemper completion bash`: what bash completes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
source {script}
COMP_WORDS=({words}) COMP_CWORD=$(({number} - 1)) COMP_LINE="{words}"
_shtab_retemper
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "retemper.bash"
    command = [sys.executable, "-m", "retemper", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [("retemper doc", {"doctor"}), ("retemper foundations g", {"get"}), ("retemper completion b", {"bash"})],
)
def test_bash_completes(script: Path, words: str, expected: set[str]) -> None:
    ask = ASK.format(script=script, words=words, number=len(words.split()))
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected
