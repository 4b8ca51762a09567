"""The verbs of `opportune`."""
