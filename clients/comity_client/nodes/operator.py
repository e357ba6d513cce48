"""A node as its operators see it: asked over its Unix socket, on its own machine. What it says of itself is taken as
said; whoever may use the socket may also read the node's disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed, NotFound
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


def decide_ask(socket: Path, member: str, *, keep: bool) -> Digest:
    """Have the node that listens on `socket` keep a request to join, or dismiss it; the id of who asks.

    `member` is the id, or 8 digits or more that one id begins with. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT),
    and as `operator_status` does.
    """

    async def decide() -> Digest:
        async with NodeClient.operator(socket.absolute()) as client:
            found = [ask.member for ask in await client.asks() if len(member) >= 8 and ask.member.startswith(member)]
            if len(found) != 1:
                why = f"{len(found)} ids of those who wait begin with {member[:64]!r}"
                hint = "comity member asks"
                raise NotFound("nobody asks to join under that id", why=why, hint=hint, code="NO-ASK")
            await client.decide_ask(found[0], keep=keep)
            return found[0]

    return asyncio.run(decide())
