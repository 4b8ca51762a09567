"""The Redis or Valkey online store: connection, routing, cache, engine."""
