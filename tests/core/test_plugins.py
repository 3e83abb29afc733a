"""Plugins are found by their files."""

from __future__ import annotations

import pytest

from retemper.core import plugins
from retemper.core.errors import UnknownNameError


def test_names_are_those_of_files() -> None:
    assert {"xtb", "orca", "manual"} <= set(plugins.names("active.oracles"))
    assert "__init__" not in plugins.names("study.claims")
    assert plugins.load("active.select", "random", "selector").choose


def test_an_unknown_name_lists_the_options_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Unknown oracle 'orka'") as error:
        plugins.load("active.oracles", "orka", "oracle")
    assert error.value.fix == "did you mean 'orca'?" and "xtb" in str(error.value.expected)
