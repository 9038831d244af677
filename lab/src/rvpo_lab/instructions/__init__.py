"""Constraint neglect with a real language model: verifiable instructions as channels."""
