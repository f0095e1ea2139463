"""The configuration: what it may hold, how it is read and checked, files it names."""
