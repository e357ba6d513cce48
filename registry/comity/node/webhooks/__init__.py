"""Tells other programs what happened at this node: CloudEvents, signed, delivered at least once."""
