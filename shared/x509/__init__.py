"""Certification requests, names and keys as X.509 has them. Pure."""
