"""The journal: every answered decision on the disk before its answer leaves."""
