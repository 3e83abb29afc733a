"""MLflow as an index over the files under ``runs/``: its store, its runs, and where results come from."""
