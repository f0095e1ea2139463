"""Text of strangers: addresses, what may be shown, secrets that are repeated. Pure."""
