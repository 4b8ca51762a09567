"""Lifts, intervals, sample ratio and corrections, on SciPy."""
