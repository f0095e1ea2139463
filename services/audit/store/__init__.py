"""The database of the audit service: its tables, migrations and connections."""
