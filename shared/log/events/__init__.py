"""The events of the log as values: named in the past tense, frozen, additive, versioned.

Fields are never renamed or removed, and new ones have a default, so any version of a service reads
any version of an event. tests/golden holds one file for every version ever written.
"""
