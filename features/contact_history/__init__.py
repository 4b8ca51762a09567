"""The contact history of one customer as bytes: its entries, the limits it is held to, counts, takes and updates."""
