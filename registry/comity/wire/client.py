"""The client of a node: one method per call of comity.v1, with values and errors of comity.trust.errors. What each does
is said where it is declared, in the module of its service.

Every call has a deadline, and the size of answers is limited while they arrive. The client checks only what the request
determines: the digest of an object, the order of entries, the length of a range. All other data is unverified.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from comity.wire import limits
from comity.wire.addresses import Address
from comity.wire.artifact import ArtifactCalls
from comity.wire.blob import BlobCalls
from comity.wire.calls import Calls
from comity.wire.charter import CharterCalls
from comity.wire.log import LogCalls
from comity.wire.node import NodeCalls
from comity.wire.operator import OperatorCalls
from comity.wire.publish import PublishCalls
from comity.wire.tls import CertificatePin, PinnedChannel, TlsIdentity, connect, connect_operator

if TYPE_CHECKING:
    from comity.wire.audit import AuditCalls
    from comity.wire.bundle import BundleCalls
    from comity.wire.channels import EarlyChannels
    from comity.wire.news import NewsCalls
    from comity.wire.offer import OfferCalls
    from comity.wire.pin import PinCalls
    from comity.wire.upstream import UpstreamCalls


class NodeClient(NodeCalls, CharterCalls, LogCalls, ArtifactCalls, BlobCalls, PublishCalls, OperatorCalls):
    """One connection to a node, with the calls of its services. Close it, or use it as an async context manager.

    Every method may raise Unavailable (unreachable, timeout, overload), Refused (certificate, rate, permission) and
    Malformed (invalid answer); further errors are in the docstrings. If a method returns an async iterator, closing the
    iterator ends the call: use `contextlib.aclosing` unless the iterator is exhausted.
    """

    def __init__(self, connection: PinnedChannel, *, timeout: float = limits.CALL_TIMEOUT) -> None:
        super().__init__(Calls(connection, timeout))

    @cached_property
    def offers(self) -> OfferCalls:
        """The calls of `OfferService`. Loaded at the first call, like the next five: few programs need them."""
        from comity.wire.offer import OfferCalls

        return OfferCalls(self._calls)

    @cached_property
    def audits(self) -> AuditCalls:
        """The calls of `AuditService`."""
        from comity.wire.audit import AuditCalls

        return AuditCalls(self._calls)

    @cached_property
    def pins(self) -> PinCalls:
        """The calls of `PinService`."""
        from comity.wire.pin import PinCalls

        return PinCalls(self._calls)

    @cached_property
    def news(self) -> NewsCalls:
        """The calls of `NewsService`."""
        from comity.wire.news import NewsCalls

        return NewsCalls(self._calls)

    @cached_property
    def upstream(self) -> UpstreamCalls:
        """The calls of `UpstreamService`."""
        from comity.wire.upstream import UpstreamCalls

        return UpstreamCalls(self._calls)

    @cached_property
    def bundles(self) -> BundleCalls:
        """The calls of `BundleService`."""
        from comity.wire.bundle import BundleCalls

        return BundleCalls(self._calls)

    @classmethod
    def connect(
        cls,
        address: Address,
        pin: CertificatePin,
        identity: TlsIdentity | None = None,
        *,
        proxy: bool = False,
        early: EarlyChannels | None = None,
        timeout: float = limits.CALL_TIMEOUT,
    ) -> Self:
        """Connect to the node with the pinned certificate: its mutual port with an identity, else its open port. No
        other client shares the TCP connection. `early`: channels of which one may be to it."""
        return cls(connect(address, pin, identity, proxy=proxy, early=early), timeout=timeout)

    @classmethod
    def operator(cls, socket: Path, *, timeout: float = limits.CALL_TIMEOUT) -> Self:
        """Connect to a node on this machine over its Unix socket."""
        return cls(connect_operator(socket), timeout=timeout)

    def with_timeout(self, timeout: float) -> NodeClient:
        """Returns a client on the same connection with this timeout: seconds for an answer, or for the next message."""
        return NodeClient(self._calls.connection, timeout=timeout)

    def begin_connecting(self) -> None:
        """Begin to connect, and return at once: the handshakes go on while this process does other things."""
        self._calls.connection.begin()

    async def connected(self) -> None:
        """Connect, and wait until calls can be made. Raises Unavailable or Refused, with the reason."""
        await self._calls.connection.connected()

    async def close(self, grace: float | None = None) -> None:
        """Close the connection. Calls that run may end within `grace` seconds; none begins."""
        await self._calls.connection.channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
