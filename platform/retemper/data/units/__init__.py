"""Units of labels: conversion to eV and Angstrom, and the test whether declared units can be true."""

from retemper.data.units.check import Verdict, check_units
from retemper.data.units.conversion import ENERGY_UNITS, LENGTH_UNITS, energy_factor, length_factor
from retemper.data.units.require import Judged, require_units

__all__ = [
    "ENERGY_UNITS",
    "LENGTH_UNITS",
    "Judged",
    "Verdict",
    "check_units",
    "energy_factor",
    "length_factor",
    "require_units",
]
