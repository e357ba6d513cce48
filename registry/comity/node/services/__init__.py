"""Implementations of the comity.v1 services, values in, values out; their protocols are in `comity.wire`."""
