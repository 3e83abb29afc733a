"""One head of a model as a model of its own, and as torch-sim reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.core.errors import RetemperError
from retemper.models import library, mace, model_file

if TYPE_CHECKING:
    pass


def require_state(weights: Path, to: str) -> tuple[str, ...]:
    """Which of charge and spin the model reads; formats that cannot tell it are refused."""
    read = mace.reads(weights)
    if read and to not in ("model", "ase"):
        raise RetemperError(
            f"The format {to} cannot tell the model what its energy depends on: {' and '.join(read)}.",
            expected="a format that reads them: model or ase",
            got=to,
            fix="export to ase; or fine-tune a foundation that reads no charge and spin",
        )
    return read


def single_head(weights: Path, head: str, out: Path) -> Path:
    """Write `weights` with `head` alone as a pickle, in their own precision."""
    mace.pick_head(weights, head)
    model = model_file.load(weights)
    if len(mace.heads(weights)) > 1:
        from retemper.models.head_weights import with_heads

        model = with_heads(model, {head: head})
    model_file.write_pickle(model, out)
    return out


def torch_sim_model(single: Path, device: str, dtype: str) -> Any:
    """A torch-sim model of a file with one head.

    torch-sim 0.3 never passes a head on, so that it evaluates head 0 of a file with several.
    """
    library.import_mace()
    import torch

    require_state(single, "torch-sim")
    try:
        from torch_sim.models.mace import MaceModel
    except ImportError as error:
        raise RetemperError("torch-sim is not installed.", fix='pip install "retemper[torch-sim]"') from error
    loaded = model_file.load(single, device)
    if len(getattr(loaded, "heads", ["Default"])) > 1:
        raise RetemperError(f"{single} has several heads, of which torch-sim would use the first.")
    with mace.default_dtype(dtype):
        return MaceModel(model=loaded, device=torch.device(device), dtype=getattr(torch, dtype))
