"""What was bought and what it may cost: the store of answers, leases, the cap, prices."""
