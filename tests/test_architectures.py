"""Every strategy on foundations of other architectures: readouts with biases, several heads, charge and spin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from architectures import MH1_HEADS, build_mh1, build_omol
from trainings import make_files, make_plan, run

from retemper import strategies

from conftest import ROOT

BUILT = {"mh1": (build_mh1, MH1_HEADS[1]), "omol": (build_omol, None)}


@pytest.fixture(scope="module", params=list(BUILT))
def others(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    build, head = BUILT[request.param]
    return make_files(folder, build(folder / "foundation.model"), head)


@pytest.mark.parametrize("name", strategies.names(ROOT))
def test_runs(name: str, others: dict[str, Any], tmp_path: Path) -> None:
    run(make_plan(others, name), tmp_path)
