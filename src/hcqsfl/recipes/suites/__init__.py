"""Suites of attacks: each lists the cases that it runs on one training."""
