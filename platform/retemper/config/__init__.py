"""What a user asks for: settings, strategies, foundations, names of metrics. Nothing is computed here."""
