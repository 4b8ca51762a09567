"""Back a workspace up while it serves, and restore it."""
