"""Which columns there are, how a row stores them, and how one decision lays them out: in training as in serving."""
