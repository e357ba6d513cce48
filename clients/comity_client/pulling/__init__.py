"""From an artifact's evidence to its files on this machine: fetched, verified, placed, with their pack beside them."""
