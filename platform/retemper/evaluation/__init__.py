"""How good a model is: errors on held-out structures, and what it does away from them (`robustness`)."""
