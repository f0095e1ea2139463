"""CAs as everybody sees them: chains and CRLs of the log, files, validity."""
