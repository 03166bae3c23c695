"""Circuits, one file each."""
