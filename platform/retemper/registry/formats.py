"""What a registered version can be exported to."""

FORMATS = ("model", "ase", "torch-sim", "lammps", "lammps-mliap")
