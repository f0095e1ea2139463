"""The parts of a running service: process, HTTP, workers, reloads, clocks."""
