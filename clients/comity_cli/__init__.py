"""The `comity` command: arguments in, rendering out."""
