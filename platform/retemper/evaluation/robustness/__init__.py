"""What a model does away from its test set: metrics on any ASE calculator.

A metric is one file of `retemper.evaluation.robustness.metrics`. It plans tasks (dynamics, relaxations,
single points), the engine computes them once and keeps them, and the metric turns their
results into numbers with intervals, tables and failing structures.
"""
