"""Checks of the doctor over data: customers, offers, streams, events, features, limits."""
