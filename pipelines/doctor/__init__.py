"""The doctor: examine a workspace, report what is missing or suspicious."""
