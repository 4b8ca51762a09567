"""One business as it was read: files, variants by arm, rules, experiments, ramps."""
