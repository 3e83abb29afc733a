"""The importers: one file each; its stem is the importer's name.

An importer has ``Options`` and ``frames(source, options)``, which yields structures one by one in A
with ``REF_energy`` (eV) and ``REF_forces`` (eV/A), and ``group`` where the source tells molecules or
trajectories apart. Files that ASE reads (extxyz and others) need none: the dataset stage takes them.
"""
