"""The SCEP codec: pure functions between bytes and values (RFC 8894, RFC 5652)."""
