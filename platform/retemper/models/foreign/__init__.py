"""Model files of other programs, which are pickles, read as data: nothing in them is imported, called or run."""
