"""Conditions compiled to sets of offers."""
