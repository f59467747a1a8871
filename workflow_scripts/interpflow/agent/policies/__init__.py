"""Who decides on an agent's actions."""
