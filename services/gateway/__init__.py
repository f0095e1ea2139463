"""The gateway: SCEP over HTTP, in front of the event log."""
