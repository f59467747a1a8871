"""Artifacts on disk: Parquet tables and JSON documents, whole or absent, with provenance."""
