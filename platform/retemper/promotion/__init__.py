"""From registered versions to a trusted champion: gates, verdicts, aliases, comparison, export."""
