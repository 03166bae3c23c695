"""Fronts, trunks, heads and learners."""
