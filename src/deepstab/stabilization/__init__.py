"""Whole videos: their motion, the planned path, and the frames warped."""
