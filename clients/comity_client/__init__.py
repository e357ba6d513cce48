"""The Comity client: pull, publish, verify and join, as a typed Python API."""
