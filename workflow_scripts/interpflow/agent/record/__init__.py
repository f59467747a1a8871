"""What is written down: the chained ledger, the transcript, and the records in them."""
