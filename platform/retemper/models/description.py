"""A MACE model in words and numbers, from which MACE builds it again: what a file without code needs beside tensors.

Classes and functions are named, and looked up in MACE's own tables: a description cannot name anything else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retemper.core.errors import RetemperError
from retemper.core.version import __version__

FORMAT = "retemper MACE 1"
Small = Annotated[int, Field(ge=0, le=12)]
Size = Annotated[int, Field(ge=1, le=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Embedding(_Strict):
    """How charge, spin or another property of a structure enters the model; MACE's ``embedding_specs``."""

    type: Literal["categorical", "continuous"]
    per: Literal["graph", "node"]
    emb_dim: Size
    num_classes: Size | None = None
    in_dim: Size | None = None
    offset: int | None = None
    use_bias: bool | None = None


class Arguments(_Strict):
    """Arguments of MACE's model class, by its names; those that are tensors lie among the tensors."""

    r_max: Annotated[float, Field(gt=0, le=100)]  # A
    num_bessel: Size
    num_polynomial_cutoff: Annotated[int, Field(ge=1, le=100)]
    max_ell: Small
    interaction_cls: Name
    interaction_cls_first: Name
    num_interactions: Annotated[int, Field(ge=1, le=12)]
    hidden_irreps: Name
    MLP_irreps: Name
    edge_irreps: Name | None
    avg_num_neighbors: Annotated[float, Field(gt=0)]
    correlation: Annotated[list[Annotated[int, Field(ge=1, le=6)]], Field(min_length=1, max_length=12)]
    gate: Name
    readout_cls: Name
    pair_repulsion: bool
    apply_cutoff: bool
    use_reduced_cg: bool
    use_so3: bool
    use_agnostic_product: bool
    use_last_readout_only: bool
    use_embedding_readout: bool
    use_edge_irreps_first: bool
    keep_last_layer_irreps: bool
    distance_transform: Literal["None", "Agnesi", "Soft"]
    radial_type: Literal["bessel", "gaussian", "chebyshev"]
    radial_MLP: Annotated[list[Size], Field(max_length=12)]
    embedding_specs: dict[Name, Embedding] | None


class Description(_Strict):
    """Everything of a model but its tensors."""

    format: Literal["retemper MACE 1"] = "retemper MACE 1"
    retemper: str = __version__  # what wrote it
    architecture: Literal["ScaleShiftMACE"] = "ScaleShiftMACE"
    dtype: Literal["float32", "float64"]
    heads: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    atomic_numbers: Annotated[list[Annotated[int, Field(ge=0, le=118)]], Field(min_length=1, max_length=119)]
    arguments: Arguments
    tensors_sha256: str = ""  # of names, types, shapes and values


def parse(text: str, origin: str) -> Description:
    """A description from its JSON; what is not one is a `RetemperError` that names the field."""
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the description"
        raise RetemperError(
            f"{origin} does not describe a model: {where}: {first['msg']}.",
            expected=f"a file that retemper wrote (format {FORMAT!r})",
            fix="restore the file, or make it again",
        ) from None
