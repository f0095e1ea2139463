"""The operators' HTTP API: queries of the database, and commands."""
