"""The verbs of `opportune experiment`: report, list, export, groups and ramp."""
