"""The losses, one optimization step, the loop around it, and validation."""
