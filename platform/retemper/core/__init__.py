"""What every package rests on: errors, files, hashes, processes, Ray, git and DVC. Nothing here knows of structures."""
