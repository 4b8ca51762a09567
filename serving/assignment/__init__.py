"""Assign units to the arms of experiments, and find the state that decides for each combination of arms."""
