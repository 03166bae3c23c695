"""Aggregation rules: pure functions of updates."""
