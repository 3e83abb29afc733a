"""Units of labels: conversion to eV and Angstrom, and the test whether declared units can be true."""

from retemper.units.predicted import predictor
from retemper.units.require import Judged, require_units
from retemper.units.table import ENERGY_UNITS, LENGTH_UNITS, energy_factor, length_factor
from retemper.units.verdict import Verdict, check_units

__all__ = [
    "ENERGY_UNITS",
    "LENGTH_UNITS",
    "Judged",
    "Verdict",
    "check_units",
    "energy_factor",
    "length_factor",
    "predictor",
    "require_units",
]
