"""One module a command: arguments in, a call to `comity_client`, rendering out."""
