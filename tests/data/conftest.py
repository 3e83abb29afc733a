"""A slow trajectory."""

from __future__ import annotations

import pytest
from ase import Atoms
from staged_sets import dynamics


@pytest.fixture(scope="module")
def slow() -> list[Atoms]:
    return dynamics(1, 150, 2)
