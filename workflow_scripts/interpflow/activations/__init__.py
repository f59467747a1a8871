"""Activations on disk: safetensors shards and a Parquet index of what each row is."""
