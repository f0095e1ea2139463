"""X.509: certification requests, names, signatures and key identifiers. Pure."""
