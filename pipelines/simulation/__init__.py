"""What if: decide past requests again, decide once without a server, the demo."""
