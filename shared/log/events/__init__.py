"""The events of the log, as values: past tense, frozen, additive, versioned.

A field is never renamed or removed and a new one has a default: any version of a service reads
any version of an event. tests/golden holds one file for every version ever written.
"""
