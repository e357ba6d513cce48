"""Mirrors repositories from upstream hubs, and logs only what this node itself fetched, hashed and compared."""
