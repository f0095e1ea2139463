"""`scepstream ca`: revoke certificates and roll over a CA."""
