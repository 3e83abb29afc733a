"""A project of one's own: proposed from labelled structures, written with all that runs it, and renewed later."""
