"""The contents of the event log: subjects, events, signatures, states. Pure."""
