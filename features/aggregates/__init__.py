"""Window aggregates: in SQL over the lake, and incrementally for newer events."""
