"""Challenges decide who may enroll. One verifier judges a request; its gates are pure."""
