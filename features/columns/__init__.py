"""Which columns there are, how a row stores them, and how one decision lays them out, the same in training and serving."""
