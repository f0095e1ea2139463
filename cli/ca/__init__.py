"""`scepstream ca`: revoke certificates, roll a CA over."""
