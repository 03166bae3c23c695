"""The same experiment across machines."""
