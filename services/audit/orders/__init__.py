"""Operators' orders: each a signed event that whoever obeys it checks for itself."""
