"""One decision: a case, a file for each step, the record and the explanation."""
