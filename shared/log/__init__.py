"""The event log's contents: subjects, events, signatures, states. Pure."""
