"""The bus over JetStream: append-only subjects, direct reads, pull deliveries, core NATS hints."""
