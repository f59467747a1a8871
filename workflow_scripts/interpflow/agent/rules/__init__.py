"""What an agent may do, claim and predict, and at which level each test is decided."""
