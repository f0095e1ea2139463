"""Observability of a process: metrics, traces, logs."""
