"""The issuer: turns approved verdicts into certificates."""
