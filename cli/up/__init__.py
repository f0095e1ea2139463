"""`scepstream up`: the whole system on one machine, from nothing."""
