"""Dead letters of the event log by hand: what they are, and how they are sent again."""
