"""Read business files of any dialect into the lake, and say how tables fit together."""
