"""The `comity` command: parses arguments, calls the client, prints results."""
