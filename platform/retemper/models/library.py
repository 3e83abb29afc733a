"""MACE itself, as a library: imported without its noise, and before what must come after it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings


def _not_about_dtype(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Default dtype")


def import_mace() -> None:
    """Import MACE without the line that it prints about a missing optional package, and without its warnings.

    It must come before e3nn: MACE first allows torch to open e3nn's pickled constants. From then on
    `MACECalculator` does not warn that it converts a model to the dtype that was asked for.
    """
    logging.getLogger().addFilter(_not_about_dtype)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mace.tools  # noqa: F401
