"""The gRPC protocol between nodes: pinned channels, conversion of messages and errors, limits.

Protobuf and gRPC types are used only in this package. Other packages call `client.NodeClient`, implement the protocols
of `services`, and use the frozen values of `messages`. TLS with certificate pins keeps out unknown peers; signatures
are verified in `comity.trust`.

Not here: the service implementations (comity.node), transfers from many sources (comity.transfer), HTTP.
"""

from __future__ import annotations
