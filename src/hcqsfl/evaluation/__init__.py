"""Predictions, metrics, intervals, results and reports."""
