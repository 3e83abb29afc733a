"""Dynamics, relaxation, barriers and random structures on any evaluator, run side by side and kept."""
