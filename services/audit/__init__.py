"""The audit service: records every event in a database, and shows it by page and API."""
