"""Operators' commands: each is a signed event that its recipient verifies for itself."""
