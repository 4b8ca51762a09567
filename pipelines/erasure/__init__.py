"""Remove a customer from every place, and prove it."""
