"""Verification of log and database: checkpoints, comparison, export."""
