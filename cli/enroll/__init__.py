"""`scepstream enroll`: a real SCEP client."""
