"""Files under ``runs/`` as the stages write and read them."""
