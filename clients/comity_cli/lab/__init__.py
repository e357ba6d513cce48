"""A whole federation on one machine: for the demo, for learning, and for what one should not try at work."""
