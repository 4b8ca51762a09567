"""Scoring, Shapley values and the best k offers, in machine code."""
