"""Turn decisions and outcomes into labelled rows."""
