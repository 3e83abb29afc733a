"""retemper: fine-tuning of MLIP foundation models, tracked from data to promotion."""

from typing import Any

from retemper.core.version import __version__ as __version__


def load(name_or_uri: str, **options: Any) -> Any:
    """A registered model as ASE calculator: ``retemper.load("models:/nacl@champion")``; or a model file.

    Options: see `retemper.registry.load.load`.
    """
    from retemper.registry.load import load as load_registered

    return load_registered(name_or_uri, **options)
