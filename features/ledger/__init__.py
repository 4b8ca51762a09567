"""Recent events and budgets, and the two stores that keep them beside the contact histories."""
