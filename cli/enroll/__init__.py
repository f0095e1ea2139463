"""`scepstream enroll`: a SCEP client."""
