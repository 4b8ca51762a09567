"""The stores of one worker: read customers from them, and run the effects of decisions on the ledger."""
