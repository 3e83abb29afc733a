"""The generators: one file each; its stem is the generator's name.

A generator has ``LEVEL`` (the level of theory of its labels), ``groups()`` (names in order),
``group(name, seed, tally)`` (labelled frames of one group, which need no other group), and
``free_atoms(symbols)``. Where the system has figures of its own, ``figures(seed)`` gives them by
file name.
"""
