"""Registered models: versions with their artifacts, aliases and their history, loading, serving, export."""
