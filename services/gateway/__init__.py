"""The gateway: SCEP over HTTP, at the edge of the log."""
