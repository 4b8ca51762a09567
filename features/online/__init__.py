"""Open the online store that a workspace names, and erase customers from it."""
