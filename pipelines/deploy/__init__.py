"""Publish a model, pack a bento, supervise processes."""
