"""What a running service is made of: process, HTTP, workers, reloads, clocks."""
