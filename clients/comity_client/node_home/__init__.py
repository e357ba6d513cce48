"""A node's home directory: its keys, its card, its settings; and the beginnings of a federation."""
