"""Configuration: its schema, loading, validation, and the files it refers to."""
