"""Policies on a catalogue: rules, contact policy, consent, arbitration, slate, exploration."""
