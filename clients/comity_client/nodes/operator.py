"""A node as its operators see it: asked over its Unix socket, on its own machine. What it says of itself is taken as
said; whoever may use the socket may also read the node's disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from comity.trust.errors import Malformed
from comity.wire.client import NodeClient
from comity.wire.values import NodeStatus

from comity_client.node_home.seat import settings_of

SETTING: Final = "COMITY_LISTEN_OPERATOR"


def socket_of(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the node whose home this is listens for operators, as the node itself reads it: `listen.operator` in its
    node.toml, which the environment overrules. Raises NotFound, Malformed (CONFIG)."""
    listen = settings_of(home).get("listen")
    written = listen.get("operator") if isinstance(listen, dict) else None
    socket = environ.get(SETTING) or written or "operator.sock"
    if not isinstance(socket, str):
        raise Malformed("setting 'listen.operator' is not usable", why=f"expected a path, in {home}", code="CONFIG")
    return home / socket


def operator_status(socket: Path) -> NodeStatus:
    """How the node that listens on `socket` is.

    Raises Unavailable (UNREACHABLE) where none listens, and Refused (SOCKET-DENIED) where the socket is not for this
    user.
    """

    async def ask() -> NodeStatus:
        async with NodeClient.operator(socket.absolute()) as client:
            return await client.status()

    return asyncio.run(ask())
