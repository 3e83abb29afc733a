"""What decides a metric: what it reads is what it names, and other circumstances are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metric_runs import crystals, labelled, planted

from retemper.data.frames import read_frames
from retemper.evaluation.robustness import identity as identities
from retemper.evaluation.robustness import metrics, suite, units
from retemper.evaluation.robustness.context import Context
from retemper.records.robustness import ModelRobustness
from retemper.simulation import sources

PAIR = (13, 29)  # Al, Cu


def test_suite_writes_numbers_tables_plots_and_failures(here: Context, tmp_path: Path) -> None:
    here = replace(here, subject=planted(hole=300.0))
    content = suite.evaluate(here, ["short_range", "retention"], tmp_path / "out", workers=1, cache=tmp_path / "cache")
    assert content == ModelRobustness.read(tmp_path / "out/metrics.json")
    measured = content.metrics["short_range"]
    assert 0 <= measured.low <= measured.value <= measured.high <= 100 and measured.unit == "%"
    assert content.metrics["retention"].value is None and "foundation" in content.metrics["retention"].reason
    assert (tmp_path / "out/short_range-points.png").stat().st_size > 5000
    assert read_frames(tmp_path / "out/failed/short_range.extxyz")[0].info["config_type"] == "short-range"
    assert "not measured" in suite.table(content)
    assert measured.groups == 3 and measured.grouped_by == "sets of elements"  # Al, Cu and both
    assert f"in {measured.groups} sets of elements" in suite.table(content)
    assert measured.can_show < 100
    assert set(measured.identity) == {"level", "elements", "seed", "structures", "protocol", "code"}
    kept = units.read(tmp_path / "out/units.csv")["short_range"]
    assert units.share_over_groups(kept)[:3] == pytest.approx((measured.value, measured.low, measured.high))


class Watched:
    """A context that notes which of its fields are read."""

    def __init__(self, here: Context):
        self.here, self.read = here, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.here, name)


# What a metric reads that is not named: it stands in the structures of its tasks, or in details alone.
ELSEWHERE = {"subject", "frames", "of_known_elements", "other_heads", "symbols"}


DETAILS = {"physics": {"free_atoms"}, "short_range": {"oracle"}, "rdf": {"oracle"}}


@pytest.mark.parametrize("name", sorted(set(metrics.names()) - {"cost", "observables"}))
def test_metrics_name_what_decides_them(name: str, here: Context, tmp_path: Path) -> None:
    full = replace(here, foundation=planted(depth=0.44), retention=labelled(planted()), reference=crystals() * 5)
    watched: Any = Watched(full)
    module = metrics.load(name)
    results = suite.compute(module.plan(watched), workers=1, cache=tmp_path)
    assert module.measure(watched, results).value is not None
    assert watched.read - ELSEWHERE - DETAILS.get(name, set()) <= set(module.USES)
    assert set(module.USES) <= set(identities.PARTS)


def test_what_was_measured_otherwise_is_named(here: Context) -> None:
    def of(name: str, context: Context) -> dict[str, str]:
        module = metrics.load(name)
        return identities.identity(module, context, list(module.plan(context).values()))

    first = of("md", here)
    assert identities.difference(first, of("md", replace(here, subject=planted(depth=0.5)))) == ""
    for change, word in (
        ({"temperature": 500.0}, "temperature"),
        ({"seed": 3}, "seed"),
        ({"level": "standard"}, "level"),
        ({"frames": here.frames[:1]}, "structures"),
    ):
        assert word in identities.difference(first, of("md", replace(here, **change)))
    other = replace(here, reference=here.frames[:2])
    assert "reference" in identities.difference(of("rdf", here), of("rdf", other))
    assert identities.difference(of("rss", here), of("rss", other)) == ""
    assert "code" in identities.difference({**first, "code": "of yesterday"}, first)


def test_the_fingerprint_is_of_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment or docstring changes nothing; a constant of the module or of one that it imports does."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return sources.fingerprint(name)

    plain = of("one", "LIMIT = 1\n")
    sources.fingerprint.cache_clear()
    assert of("one", '"""Words."""\nLIMIT = 1  # more words\n') == plain
    sources.fingerprint.cache_clear()
    assert of("one", "LIMIT = 2\n") != plain
    assert sources.fingerprint("retemper.evaluation.robustness.metrics.rss") != sources.fingerprint(
        "retemper.evaluation.robustness.metrics.rss_strict"
    )


def test_a_reference_at_another_level_is_said_beside_the_number(here: Context, tmp_path: Path) -> None:
    """In metrics.json, in the table, and nowhere for metrics without the oracle or with one at the data's level."""
    from retemper.evaluation.robustness import stage

    assert stage.oracle_level("ase:retemper.systems.xtb:calculator(method='GFN1-xTB')", None) == "GFN1-xTB"
    for module in ("retemper.systems.xtb", "retemper.xtb"):  # the former place is understood
        assert stage.oracle_level(f"ase:{module}:calculator()", None) == "GFN2-xTB"
    assert stage.oracle_level("ase:planted:Pairwise()", None) is None
    assert stage.oracle_level("ase:planted:Pairwise()", "Morse") == "Morse"
    told = {}
    for level in ("Morse", "mor se", "PBE", None):
        context = replace(here, oracle=planted(depth=0.8), oracle_level=level, target_level="Morse")
        content = suite.evaluate(
            context, ["short_range", "cost"], tmp_path / str(level), workers=1, cache=tmp_path / "c"
        )
        assert content.metrics["cost"].against is None
        told[level] = content.metrics["short_range"].against
        assert (told[level] or "score") in suite.table(content)
    assert told["Morse"] is None and told["mor se"] is None
    assert told["PBE"] == "against PBE, the data are at Morse"
    assert "not known" in told[None]
