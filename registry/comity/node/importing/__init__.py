"""Mirroring from elsewhere, and saying so: what this node fetched, hashed and compared itself, and nothing else."""
