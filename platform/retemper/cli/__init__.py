"""The ``retemper`` command, one file a topic."""
