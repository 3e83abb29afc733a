"""Models that predict: MACE files, symmetrix, any ASE calculator; their descriptors and their formats."""
