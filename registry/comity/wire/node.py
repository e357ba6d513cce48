"""`NodeService`: what a node says about itself, and its charter. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Annotated, Final, Protocol

from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import node_pb2
from comity.wire import limits
from comity.wire.addresses import GatewayUrl
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import LINE, ORIGIN, Data, Exact, Items, MessageCodec, Read
from comity.wire.messages import batches
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(node_pb2)


@frozen
class ReplicaCounts:
    """How many artifacts a node holds completely, and how many it wants and lacks.

    Attributes:
        min_copies: the copies that the charter asks for, each at another member; 0 without a charter.
        counted: artifacts whose copies at the members were counted last.
        short: of these, the artifacts with fewer copies, jurisdictions or reaches than the charter asks for.
    """

    held: int
    lacking: int
    min_copies: int = 0
    counted: int = 0
    short: int = 0


@frozen
class NodeFacts:
    """Facts that a node reports about itself. `identity` has its member's inception and rotations, in order; `gateway`
    is its URL for HTTP clients; `replicas` is None in older software."""

    software: Annotated[str, Exact(limits.NAME)]
    origin: Annotated[str, ORIGIN]
    node_record: Annotated[bytes | None, LINE] = None
    identity: Annotated[tuple[bytes, ...], Items(limits.IDENTITY_LINES, LINE)] = ()
    addresses: Annotated[bytes | None, LINE] = None
    capabilities: Annotated[tuple[str, ...], Items(limits.CAPABILITIES, Exact(limits.LABEL))] = ()
    gateway: Annotated[GatewayUrl | None, Read(GatewayUrl.parse, str)] = None
    replicas: ReplicaCounts | None = None


@frozen
class Charter:
    """The charter of one epoch: the body as it was hashed, and the lines that certify it."""

    epoch: int
    body: Annotated[bytes, Data(limits.CHARTER_BODY)]
    certificate: Annotated[tuple[bytes, ...], Items(limits.CERTIFICATE_LINES, LINE)]


CHARTER: Final = MessageCodec(Charter, node_pb2.GetCharterResponse)
"""One part of a charter, with parts of its body and certificate."""


def join_charter(epoch: int, parts: Iterable[Charter]) -> Charter:
    """Join the parts of a charter, in order. Raises Malformed above a limit."""
    pieces = list(parts)
    body = b"".join(part.body for part in pieces)
    certificate = tuple(line for part in pieces for line in part.certificate)
    if len(body) > limits.CHARTER_BODY or len(certificate) > limits.CERTIFICATE_LINES:
        why = f"at most {limits.CHARTER_BODY} bytes of body and {limits.CERTIFICATE_LINES} lines"
        raise Malformed("charter too large", why=why)
    return Charter(epoch, body, certificate)


def charter_parts(charter: Charter) -> Iterable[Charter]:
    """Splits a charter into parts that fit into one message."""
    for start in range(0, len(charter.body), limits.CHUNK):
        yield Charter(charter.epoch, charter.body[start : start + limits.CHUNK], ())
    for lines in batches(charter.certificate):
        yield Charter(charter.epoch, b"", lines)


async def _serve_charter(
    service: NodeService, request: node_pb2.GetCharterRequest, context: Context
) -> AsyncIterator[node_pb2.GetCharterResponse]:
    for part in charter_parts(await rpc_of(NodeService.charter).ask(service, request)):
        yield CHARTER.encode(part)


class NodeService(Protocol):
    @rpc("GetNode")
    async def node(self) -> NodeFacts: ...

    @rpc("GetCharter", items=limits.CERTIFICATE_LINES, serve=_serve_charter)
    async def charter(self, epoch: int | None = None) -> Charter:
        """The charter of an epoch, by default the newest that the node has. Raises NotFound."""


class NodeCalls(ServiceCalls):
    node = call(NodeService.node)

    async def charter(self, epoch: int | None = None) -> Charter:
        """The charter of an epoch, by default the newest that the node has. Raises NotFound."""
        charter = rpc_of(NodeService.charter)
        async with aclosing(self._calls.stream(charter, charter.request.encode(epoch))) as messages:
            parts = [CHARTER.decode(message) async for message in messages]
        if len({part.epoch for part in parts}) != 1 or epoch not in (None, parts[0].epoch):
            raise Malformed("the answer is not one charter", why="its parts belong to another epoch or to several")
        return join_charter(parts[0].epoch, parts)
