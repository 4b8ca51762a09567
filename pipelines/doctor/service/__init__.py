"""Checks of the doctor over what runs: models, experiments, ramps, worker, machine, programs."""
