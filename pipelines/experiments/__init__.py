"""Experiment reports, control groups, exports."""
