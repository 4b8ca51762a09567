"""Events over HTTP: read them, log them durably, and deliver them to the ledger."""
