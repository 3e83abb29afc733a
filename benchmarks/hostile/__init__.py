"""Long campaigns against the platform by its commands: kills, two users; the table of hostile cases."""
