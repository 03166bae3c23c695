"""Threat models, what each sees, attacks, defences and their measures."""
