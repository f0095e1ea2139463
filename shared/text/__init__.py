"""Untrusted text: what may be shown of it, and secrets that it repeats. Pure."""
