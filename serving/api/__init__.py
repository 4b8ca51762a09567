"""The routes: decisions, events, experiments, flags, erasure."""
