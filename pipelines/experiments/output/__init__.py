"""Reports of experiments as tables for people, and as figures."""
