"""Code that the services share: the codec, the events, the bus."""
