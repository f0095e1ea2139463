"""The four services: gateway, validator, issuer and audit."""
