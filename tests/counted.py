"""What was collected, for the test that counts hostile cases."""

from __future__ import annotations

from pathlib import Path

import pytest

COLLECTED = pytest.StashKey[set[Path]]()  # files whose tests were collected
HOSTILE = pytest.StashKey[dict[str, int]]()  # hostile cases among them, by kind
