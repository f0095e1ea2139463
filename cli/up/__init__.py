"""`scepstream up`: set up and run the whole system on one machine."""
