"""The thinking halves of the calls of comity.v1, values in, values out; their protocols: `comity.wire.services`."""
