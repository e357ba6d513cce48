"""The topics of the Python API. `client.Client` is all of them."""
