"""The way between nodes: pinned channels, messages to values and back, errors to statuses and back, bounds.

Protobuf and gRPC types do not leave this room. The rest of the house calls `client.NodeClient`, implements the
protocols of `services`, and sees the frozen values of `values`. TLS and the pins here keep strangers off the line; what
is true is decided in `comity.trust`, from signatures.

Not here: what a node answers (comity.node), many sources for one file (comity.transfer), HTTP.
"""

from __future__ import annotations
