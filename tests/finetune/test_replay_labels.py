"""Strategies that replay original labels are refused where the pool has none, or those of another level of theory."""

from __future__ import annotations

import prepared
import pytest

from retemper.core.errors import RetemperError
from retemper.finetune.planning import require_original
from retemper.records.replay import Agreement, ReplayManifest

CLOSE = Agreement(
    frames=60,
    energy=40.0,
    energy_without_offsets=20.0,
    offsets={"O": 0.05},
    force_rmse=100.0,
    force_rmse_by_element={"O": 100.0},
    stress_rmse=None,
)
OTHER = CLOSE.model_copy(update={"energy": 2800.0, "offsets": {"O": -4.6}})


def changed(change: dict[str, object]) -> ReplayManifest:
    manifest = prepared.replay()
    return manifest.model_copy(update={"pools": [manifest.pools[0].model_copy(update=change)]})


def test_labels_of_the_foundations_kind_are_replayed() -> None:
    require_original("replay", changed({"agreement": CLOSE}))


@pytest.mark.parametrize("change", [{"labels": "foundation"}, {"agreement": OTHER}])
def test_other_labels_are_refused_before_training(change: dict[str, object]) -> None:
    with pytest.raises(RetemperError) as caught:
        require_original("replay", changed(change))
    assert "pseudolabel-replay" in str(caught.value.fix)
