"""Queries of the read model, for the API, the page and the command line."""
