"""The public side of CAs: chains and CRLs from the log, validity."""
