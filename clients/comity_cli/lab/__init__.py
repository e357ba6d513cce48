"""A whole federation on one machine, for the demo, for learning and for experiments."""
