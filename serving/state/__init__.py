"""What a decision is made from: the snapshot of files and model, and what the stores know about a customer."""
