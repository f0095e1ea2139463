"""The operators' page: HTML rendered on the server, with a small script."""
