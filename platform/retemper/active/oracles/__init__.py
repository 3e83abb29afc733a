"""Oracles, one a file: `Options`, `level(options)`, and `calculator(options, atoms, state, folder)`, of ASE.

The calculator's atoms have charge and multiplicity in ``info["charge"]`` and ``info["spin"]`` too. An oracle that
labels elsewhere has `MANUAL = True` and no calculator.
"""
