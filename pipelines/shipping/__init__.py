"""Bring journal and event log into the lake exactly once; compact and retain."""
