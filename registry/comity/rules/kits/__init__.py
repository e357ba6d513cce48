"""Run-kits: what the file of a kit says, the requests that test it, and whether its files are those that it names.
Pure."""
