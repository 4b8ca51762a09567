"""The event log on SQLite, and the decision journal's records."""
