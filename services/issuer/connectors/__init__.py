"""Ways to a CA."""
