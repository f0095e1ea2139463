"""`scepstream connector`: a stand-in for the service that makes signed challenges."""
