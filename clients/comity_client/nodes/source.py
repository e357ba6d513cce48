"""A node as a source of bytes for `comity.transfer`, in two ways: gRPC streams, and HTTPS ranges where it has them."""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from comity.transfer.ranges import RangeSource
from comity.transfer.source_key import SourceKey
from comity.trust.digest import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.wire.certs import Pin

from comity_client.nodes.session import RemoteNode


class NodeSource:
    """Reads blobs from one node; after a failure the next try goes to its next address."""

    def __init__(self, node: RemoteNode) -> None:
        self._node = node
        self._turn = 0
        self.key = SourceKey("node", sha256(node.line))

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def host(self) -> SourceKey:
        return self.key

    def over_https(self) -> RangeSource:
        """The other way to the same node; to be closed."""
        return RangeSource(
            self.key,
            self.name,
            Pin.of(self._node.record.tls),
            lambda digest: self._node.ask(lambda client: client.locations(digest)),
        )

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        addresses = self._node.addresses
        client = self._node.client(addresses[self._turn % len(addresses)])
        try:
            async with aclosing(client.read(digest, offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except NotFound:
            raise
        except Unavailable:
            self._turn += 1
            raise


def node_sources(nodes: Iterable[RemoteNode]) -> list[NodeSource]:
    """One source for each node that has an address, each once."""
    sources = {source.key: source for source in (NodeSource(node) for node in nodes if node.addresses)}
    return list(sources.values())


def other_ways(sources: Iterable[NodeSource]) -> list[RangeSource]:
    """HTTPS sources beside gRPC ones. None where this machine reaches others through a proxy: gRPC knows how."""
    if "https" in urllib.request.getproxies():
        return []
    return [source.over_https() for source in sources]
