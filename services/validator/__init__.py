"""The validator: decides who may enroll."""
