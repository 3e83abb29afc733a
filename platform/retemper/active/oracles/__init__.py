"""Oracles, one a file: `Options`, `level(options)`, and `calculator(options, atoms, state, folder)`, of ASE.

An oracle that labels elsewhere has `MANUAL = True` and no calculator.
"""
