"""CAs for connectors to reach: one module for each kind, with a `lab` that runs its CA."""
