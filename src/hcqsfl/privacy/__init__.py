"""Observations, leakage metrics, attacks and defences."""
