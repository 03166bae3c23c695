"""Quantum circuits, the layer that holds one, and the backends that simulate it."""
