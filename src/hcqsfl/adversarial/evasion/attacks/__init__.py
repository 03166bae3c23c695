"""Evasion attacks: one file an attack, each of which declares an ``ATTACK``."""
