"""The aggregates of events: what each takes, gives and stores, its SQL, and how newer events are added to it."""
