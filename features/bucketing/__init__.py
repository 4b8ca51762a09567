"""Hashes and splits of experimentation tools, to the bit."""
