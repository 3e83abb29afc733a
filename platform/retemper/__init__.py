"""retemper: fine-tuning of MLIP foundation models, tracked from data to promotion."""

__version__ = "0.1.0"
