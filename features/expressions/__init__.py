"""The expression language: from text to a typed tree."""
