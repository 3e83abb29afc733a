"""MACE as it is trained here: set-up, epochs, loss, checkpoints, and the proof of what ran."""
