"""Certificates that expire: measured for alerts, and reported to an operator's service."""
