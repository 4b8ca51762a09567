"""The routes: decisions, experiments, flags, erasure."""
