"""Oracles, one a file: `Options`, `level(options)`, `ingredients(options, atoms)`, `calculator(options, atoms, state,
folder)`, of ASE.

The ingredients are what decides a label beside the options: versions of packages, contents of programs and of the
files that the options name. A label is found again by its oracle, options and ingredients.

The calculator's atoms have charge and multiplicity in ``info["charge"]`` and ``info["spin"]`` too. An oracle that
labels elsewhere has `MANUAL = True` and no calculator.
"""
