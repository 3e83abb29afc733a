"""Small untrained models of the architectures of released foundations: twins of them, with random weights.

Sizes are tiny; what is built of what follows the released models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import build_tiny

from retemper.models import describing, mace, model_writing
from retemper.models.architecture import addition

EMBEDDING = {  # as MACE's `embedding_specs` of mace-omol-0, with smaller embeddings
    "total_spin": {"type": "categorical", "per": "graph", "num_classes": 11, "emb_dim": 4},
    "total_charge": {"type": "categorical", "per": "graph", "num_classes": 21, "emb_dim": 4, "offset": 10},
}
MH1_HEADS = ["omat_pbe", "matpes_r2scan", "spice_wB97M"]


def nonlinear() -> dict[str, Any]:
    """What both have in common, as arguments of MACE's model class."""
    from mace import modules
    from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

    block = modules.interaction_classes["RealAgnosticResidualNonLinearInteractionBlock"]
    return {
        "interaction_cls": block,
        "interaction_cls_first": block,
        "readout_cls": modules.blocks.NonLinearBiasReadoutBlock,
        "edge_irreps": o3.Irreps("4x0e + 4x1o"),
        "use_reduced_cg": True,
        "use_agnostic_product": True,
        "apply_cutoff": False,
        "distance_transform": "Agnesi",
        "radial_MLP": [16, 16],
    }


def build_mh1(path: Path, heads: list[str] | None = None) -> Path:
    """MACE-MH-1: several heads, readouts with biases, non-linear blocks, an element-agnostic product, edge irreps."""
    return build_tiny(path, heads or MH1_HEADS, pair_repulsion=True, **nonlinear())


def build_omol(path: Path) -> Path:
    """MACE-OMOL-0: besides that the total charge and spin, embedded and with an energy of their own.

    With fewer channels than elements: TorchScript then returns a view.
    """
    blocks = nonlinear()
    from e3nn import o3  # after mace: see its weights_only handling

    charged = {"embedding_specs": EMBEDDING, "use_embedding_readout": True, "use_last_readout_only": True}
    return build_tiny(path, ["omol"], **blocks, **charged, hidden_irreps=o3.Irreps("4x0e + 4x1o"))


def build_like(path: Path, hidden: str, first: str = "RealAgnosticResidualInteractionBlock", **more: Any) -> Path:
    """A model of plain blocks with messages of `hidden` irreps, spherical harmonics up to l = 3."""
    from mace import modules
    from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

    block = modules.interaction_classes[first]
    return build_tiny(
        path,
        ["Default"],
        hidden_irreps=o3.Irreps(hidden),
        interaction_cls_first=block,
        max_ell=3,
        correlation=3,
        **more,
    )


def build_dense(path: Path, hidden: str) -> Path:
    """Density normalisation, Agnesi transform of distances, ZBL repulsion."""
    from mace import modules

    block = modules.interaction_classes["RealAgnosticDensityResidualInteractionBlock"]
    more = {"interaction_cls": block, "distance_transform": "Agnesi", "pair_repulsion": True}
    return build_like(path, hidden, "RealAgnosticDensityInteractionBlock", **more)


def build_old(path: Path) -> Path:
    """A file of 2022: weights in float32, no heads."""
    import torch

    model = torch.load(build_tiny(path, ["Default"]), weights_only=False).float()
    del model.heads
    torch.save(model, path)
    return path


def build_shallow(path: Path) -> Path:
    """One layer."""
    return build_tiny(path, ["Default"], num_interactions=1)


def build_deep(path: Path) -> Path:
    """Three layers with equivariant messages."""
    import mace  # noqa: F401 (before e3nn: see its weights_only handling)
    from e3nn import o3  # isort: skip

    return build_tiny(path, ["Default"], num_interactions=3, hidden_irreps=o3.Irreps("4x0e + 4x1o"))


BUILD: dict[str, Callable[[Path], Path]] = {  # by the released model that it is a twin of
    "mp-0-small": lambda path: build_like(path, "4x0e"),
    "omat-0-small": lambda path: build_dense(path, "4x0e"),
    "mh-1": build_mh1,
    "mp-0-medium": lambda path: build_like(path, "4x0e + 4x1o"),
    "omol": build_omol,
    "off-large": lambda path: build_like(path, "2x0e + 2x1o + 2x2e", "RealAgnosticInteractionBlock"),
    "mpa-0": lambda path: build_dense(path, "4x0e + 4x1o"),
    "three layers": build_deep,
    "one layer": build_shallow,
    "old": build_old,
}
HEAD = {"mh-1": MH1_HEADS[1]}  # to start from, where there are several
DTYPE = {"old": "float32"}  # to train in, where it is not float64


def build_plain(path: Path, **more: Any) -> Path:
    """One head, plain blocks; what `more` says is different."""
    return build_tiny(path, ["Default"], **more)


def run(path: Path) -> Any:
    """The model as torch unpickles it: with the code that lies in the file."""
    import torch

    return torch.load(path, map_location="cpu", weights_only=False).eval()


def answers(model: Any) -> list[np.ndarray]:
    """Energies, forces and stress of every head."""
    import torch

    answered: list[np.ndarray] = []
    with mace.default_dtype(describing.describe(model).dtype), addition(model), torch.jit.optimized_execution(False):
        for head in getattr(model, "heads", None) or ["Default"]:
            frames = model_writing.probes([int(z) for z in model.atomic_numbers])
            for _, batch in mace.batches(model, frames, head, "cpu"):
                output = model(batch, training=False, compute_force=True, compute_stress=True)
                answered += [output[name].detach().numpy() for name in ("energy", "forces", "stress")]
    return answered
