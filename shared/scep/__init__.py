"""The SCEP codec: pure functions that parse and write messages (RFC 8894, RFC 5652)."""
