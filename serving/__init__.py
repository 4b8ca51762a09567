"""Answer one request. BentoML lives here."""
