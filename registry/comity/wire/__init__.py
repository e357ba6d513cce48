"""The gRPC protocol between nodes: pinned channels, conversion of messages and errors, limits.

Protobuf and gRPC types are used only in this package. Each service of comity.v1 has a module named as its .proto file:
its frozen values, the protocol that the node implements, which declares the calls (`rpc`), and the client's calls,
which are made of it. Other packages call `client.NodeClient`, implement the protocols, and use the values. TLS with
certificate pins keeps out unknown peers; signatures are verified in `comity.trust`.

Not here: the service implementations (comity.node), transfers from many sources (comity.transfer), HTTP.
"""

from __future__ import annotations

import os

# The C core of gRPC writes lines of its own to standard error, past every logger: one for each failed handshake of any
# stranger. What matters of them is an error of a call, or an event of the node.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
