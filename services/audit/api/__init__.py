"""The operators' HTTP API over the database and the commands."""
