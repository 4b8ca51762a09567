"""Contact histories, recent events and budgets: their values, and the two stores that keep them."""
