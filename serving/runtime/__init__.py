"""The process: metrics, drain, parent watch, memory, yielding."""
