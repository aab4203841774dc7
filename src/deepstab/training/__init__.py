"""One optimization step, the loop around it, and checkpoints."""
