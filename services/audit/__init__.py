"""The audit service: every event, kept and shown."""
