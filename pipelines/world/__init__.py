"""A room: say in one sentence what lives here."""
