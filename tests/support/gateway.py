"""A node with a gateway and one published artifact."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.gateway.app import serve_gateway
from comity.gateway.hub import judge, list_items
from comity.trust.statements import Parent
from support.federation import NodeHome, found, serving
from support.publisher import Publisher, Release, release, send


@dataclass(frozen=True)
class GatewayNode:
    """A running node; `url` is that of its gateway."""

    url: str
    home: NodeHome
    publisher: Publisher

    async def publish(
        self,
        folder: Path,
        name: str,
        publisher: Publisher | None = None,
        kind: str | None = None,
        lineage: tuple[Parent, ...] = (),
    ) -> Release:
        """Publish a folder, by default as the publisher that the charter binds to the namespace `tests`."""
        ready = release(publisher or self.publisher, folder, name, kind=kind, lineage=lineage)
        async with self.home.client() as node:
            await send(node, ready)
        return ready

    def blob(self, digest: str) -> Path:
        """The path of a blob on the node's disk."""
        return self.home.config().storage.blobs / "blobs" / digest[:2] / digest

    def damage(self, digest: str, at: int) -> None:
        """Flip one bit of a blob on the node's disk, as a failing disk would."""
        path = self.blob(digest)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)


@contextlib.contextmanager
def looking_at_each_request() -> Iterator[None]:
    """While the block lasts, gateways of this process look at the ledger for each request, not once a second: what was
    logged is seen at once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (judge, list_items):
            patch.setattr(module, "CHECK_INTERVAL", 0.0)
        yield


@contextlib.asynccontextmanager
async def gateway_node(
    folder: Path,
    upstream: Mapping[str, object] | None = None,
    publisher: Publisher | None = None,
    members: int = 1,
    **gateway: object,
) -> AsyncIterator[GatewayNode]:
    """The node of the first of some members, alone, whose charter binds the namespace `tests` to `publisher`, by
    default a new one; `gateway` and `upstream` are settings of those sections."""
    publisher = publisher or Publisher.generate()
    home, *_ = found(folder, members, namespaces={"tests": publisher.id}).homes
    if gateway:
        home.set("gateway", **gateway)
    if upstream:
        home.set("upstream", **upstream)
    async with serving(home, companion=serve_gateway) as (listening,):
        yield GatewayNode(listening.http, home, publisher)
