"""Talking to nodes: the session over all of them, a node as a source of bytes, a node that takes statements."""
