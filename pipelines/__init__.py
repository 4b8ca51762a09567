"""The verbs that move data between the rooms: the command `opportune`."""
