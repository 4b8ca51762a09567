"""Ramps of experiments: look, step, roll back."""
