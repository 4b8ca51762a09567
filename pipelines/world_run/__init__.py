"""Run a service or a decider in the world, and judge it."""
