"""One decision, step by step; the snapshot it runs on; its record and explanation."""
