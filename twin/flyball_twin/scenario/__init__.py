"""Scenarios: what a fleet is, what is asked of it, and what goes wrong on the way, as one document."""
