"""What every package rests on: errors, files, hashes, executor, Ray, git and DVC. Nothing here knows of structures."""
