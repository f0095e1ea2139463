"""What the services share: the codec, the events, the bus."""
