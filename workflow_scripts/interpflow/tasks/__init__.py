"""Tasks as data: items with known truth, in pure Python."""
