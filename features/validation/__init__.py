"""Load a workspace: every check of its files against each other."""
