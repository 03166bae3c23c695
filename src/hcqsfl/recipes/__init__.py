"""Experiments: config in, result out, readable top to bottom."""
