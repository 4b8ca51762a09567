"""Watch files and bundles, and swap snapshots."""
