"""Attacks on privacy, one file each."""
