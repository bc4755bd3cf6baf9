"""The training step and what surrounds it: mesh, state, optimizer, checkpoints, metrics files."""
