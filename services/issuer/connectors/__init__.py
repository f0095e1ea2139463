"""Connectors: how the issuer reaches its CAs."""
