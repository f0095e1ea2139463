"""`scepstream connector`: a stand-in for the service that signs challenges."""
