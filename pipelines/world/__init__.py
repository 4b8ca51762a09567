"""A simulated world of which the truth is known."""
