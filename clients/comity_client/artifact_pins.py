"""What an operator pins on the node of this machine. Raises as `operator_status` does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from comity.trust.artifact_pins import Pin
from comity.trust.encoding import Digest
from comity.wire.client import NodeClient

if TYPE_CHECKING:
    from comity.wire.pin import ListedPin


def put_pin(socket: Path, pin: Pin) -> None:
    """Pin an artifact, or change its pin. Raises NotFound, OutOfSpace (PINS)."""

    async def ask() -> None:
        async with NodeClient.operator(socket.absolute()) as node:
            await node.pins.put(pin)

    asyncio.run(ask())


def end_pin(socket: Path, artifact: Digest) -> None:
    """End a pin. Raises NotFound (NOT-PINNED)."""

    async def ask() -> None:
        async with NodeClient.operator(socket.absolute()) as node:
            await node.pins.end(artifact)

    asyncio.run(ask())


def list_pins(socket: Path, artifact: Digest | None = None) -> list[ListedPin]:
    """All pins, or that of one artifact."""

    async def ask() -> list[ListedPin]:
        async with NodeClient.operator(socket.absolute()) as node:
            return [pin async for pin in node.pins.listed(artifact)]

    return asyncio.run(ask())
