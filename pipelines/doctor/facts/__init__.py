"""Facts that checks of the doctor ask for, each gathered once."""
