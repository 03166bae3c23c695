"""Evasion, poisoning and their detection."""
