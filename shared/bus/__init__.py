"""The bus: append-only subjects, direct reads, pulled deliveries and core hints, over JetStream."""
