"""What verbs print: console tables, figures, errors."""
