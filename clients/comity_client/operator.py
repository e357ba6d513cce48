"""A node as its operators see it: asked over its Unix socket, on its own machine. What it says of itself is taken as
said; whoever may use the socket may also read the node's disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from comity.wire.client import NodeClient
from comity.wire.values import NodeStatus


def operator_status(socket: Path) -> NodeStatus:
    """How the node that listens on `socket` is.

    Raises Unavailable (UNREACHABLE) where none listens, and Refused (SOCKET-DENIED) where the socket is not for this
    user.
    """

    async def ask() -> NodeStatus:
        async with NodeClient.operator(socket.absolute()) as client:
            return await client.status()

    return asyncio.run(ask())
