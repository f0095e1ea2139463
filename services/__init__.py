"""The four services."""
