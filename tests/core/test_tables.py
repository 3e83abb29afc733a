"""Tables on a terminal, and elsewhere."""

from __future__ import annotations

import os
import re

import pytest

from retemper.core import output

ROWS = [["model", "force RMSE\nmeV/Å", "what"], ["naive", "30.5 (28.1 – 33.2)*", "a [bold] word"], ["lora", "7", ""]]


def test_a_row_is_a_line_where_nobody_looks() -> None:
    lines = output.table(ROWS, numbers=True, rule=True).splitlines()
    assert [re.sub(r" {2,}", "|", line.strip()) for line in lines] == [
        "model|force RMSE|what",
        "meV/Å",
        "-----|-------------------|-------------",
        "naive|30.5 (28.1 – 33.2)*|a [bold] word",
        "lora|7",
    ]
    assert lines[4].index("7") == lines[3].index("*")  # numbers end in one column


@pytest.mark.parametrize("columns", [30, 24])
def test_cells_go_on_below_on_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    text = output.table(ROWS, numbers=True, rule=True)
    assert max(map(len, text.splitlines())) <= columns
    words = sorted(word for row in ROWS for cell in row for word in cell.split())
    assert sorted(text.split()) == words  # all of them, and none broken
