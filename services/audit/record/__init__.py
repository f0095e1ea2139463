"""From the event log into the database: every event, and the rows that follow from it."""
