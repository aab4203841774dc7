"""Measures of a checkpoint on held-out videos, and how they are shown."""
