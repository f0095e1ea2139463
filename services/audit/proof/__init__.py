"""Whether log and database can be believed: checkpoints, verification, export."""
