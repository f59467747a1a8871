"""Single calls: one owner of retries, concurrency, rate limits and the orderly stop."""
