"""Schema migrations: forward from every released version."""
