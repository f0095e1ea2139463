"""Recording: stores every event of the log, and the rows projected from it."""
