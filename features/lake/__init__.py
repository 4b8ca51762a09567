"""Parquet files by day: tables, files, offers."""
