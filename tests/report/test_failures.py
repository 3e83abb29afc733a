"""failures.html: structures that the suite kept, seen without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from run_files import write_project, write_robustness

from retemper.config.project import Project
from retemper.data.frames import write_frames
from retemper.records.runs import read_results
from retemper.report import failures


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    settings = write_project(tmp_path, tiny_model, ["naive"])
    made = Project(tmp_path, settings)
    for name in ("foundation", "naive"):
        write_robustness(tmp_path, name, {"rss": 10.0})
    near = Atoms("NaCl", [[0, 0, 0], [0, 0, 1.34]], cell=[6, 6, 6], pbc=True)
    near.info |= {"config_type": "rss-50GPa", "criteria": "close <energy>"}
    far = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    far.info |= {"config_type": "md", "reason": "lost a hydrogen"}
    write_frames(made.robustness("naive") / "seed-1/failed/rss.extxyz", [near, far])
    return made


def test_each_structure_with_model_metric_and_reason(project: Project) -> None:
    first, second = failures.collect(read_results(project))
    assert (first.model, first.metric, first.why) == ("naive", "rss", "rss-50GPa, close <energy>")
    assert first.nearest == pytest.approx(1.34 / (1.66 + 1.02), rel=1e-6)  # covalent radii of Na and Cl
    assert second.why == "md, lost a hydrogen" and second.nearest == pytest.approx(0.96 / (0.66 + 0.31), rel=1e-2)


def test_the_page_holds_the_viewer_and_the_structures(project: Project) -> None:
    text = failures.page(failures.collect(read_results(project)))
    assert "rss-50GPa, close &lt;energy&gt;" in text
    data = re.search(r"^const dataset = (\{.*\});$", text, re.MULTILINE)
    assert data is not None
    content = json.loads(data[1].replace("<\\/", "</"))
    assert [structure["size"] for structure in content["structures"]] == [2, 3]
    assert np.allclose(content["structures"][0]["z"], [0, 1.34])
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in outside  # nothing is fetched


def test_without_failures_it_says_so(tmp_path: Path, tiny_model: Path) -> None:
    settings = write_project(tmp_path, tiny_model, ["naive"])
    text = failures.page(failures.collect(read_results(Project(tmp_path, settings))))
    assert "No structure was kept" in text and "<script>" not in text


def test_a_set_larger_than_the_page_is_thinned_over_all_models(project: Project) -> None:
    many = [Atoms("H2", [[0, 0, 0], [0, 0, 0.2 + 0.001 * k]]) for k in range(900)]
    for name, seed in (("naive", 1), ("foundation", 1)):
        write_frames(project.robustness(name) / f"seed-{seed}/failed/rss.extxyz", many)
    shown = failures.collect(read_results(project))
    assert len(shown) <= failures.MOST and {failure.model for failure in shown} == {"naive", "foundation"}
