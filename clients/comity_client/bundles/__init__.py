"""Bundles: what a node has, in folders that people carry where there is no network."""
