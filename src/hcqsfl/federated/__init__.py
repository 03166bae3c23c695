"""Clients, updates, rounds, aggregation."""
