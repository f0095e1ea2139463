"""Benchmarks: the codec against the crypto floor, the system against a peer server."""
