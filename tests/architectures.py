"""Small untrained models of the architectures of released foundations: twins of them, with random weights.

Sizes are tiny; what is built of what follows the released models:

========  ===========================================================================================================
mp0       MACE-MP-0 small: invariant messages
mp0m      MACE-MP-0 medium: equivariant messages
off       MACE-OFF23 large: l_max 3, messages up to l = 2, two heads of activation in each readout
mpa       MACE-MPA-0, MP-0b2 and b3: density normalisation, Agnesi transform of distances, ZBL repulsion
omat      MACE-OMAT-0 small: the same with invariant messages, and a first block that is residual too
mh1       MACE-MH-1: heads, readouts with biases, non-linear blocks, an element-agnostic product, edge irreps
omol      MACE-OMOL-0: besides that the total charge and spin, embedded and with an energy of their own
shallow   one layer
deep      three layers
single    weights in float32, as most released files
old       a file of 2022: no heads, the class without scale and shift in its name left out
========  ===========================================================================================================
"""

from __future__ import annotations

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


def build_mh1(path: Path) -> Path:
    """A model of the type of MH-1, with three heads."""
    return build_tiny(path, MH1_HEADS, pair_repulsion=True, **nonlinear())


def build_omol(path: Path) -> Path:
    """A model of the type of OMOL-0, with fewer channels than elements: TorchScript then returns a view."""
    from e3nn import o3

    charged = {"embedding_specs": EMBEDDING, "use_embedding_readout": True, "use_last_readout_only": True}
    return build_tiny(path, ["omol"], **nonlinear(), **charged, hidden_irreps=o3.Irreps("4x0e + 4x1o"))


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
