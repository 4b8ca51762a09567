"""Feast: definitions, point-in-time joins, stores, and the engine for any Feast store."""
