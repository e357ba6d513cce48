"""`NodeService`: what a node says about itself, and its charter. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from comity.trust.errors import Malformed
from comity.v1 import node_pb2
from comity.v1.node_pb2_grpc import NodeServiceServicer, NodeServiceStub
from comity.wire import limits
from comity.wire.addresses import GatewayUrl
from comity.wire.calls import ServiceCalls
from comity.wire.messages import Context, batches, read_data, read_integer, read_line, read_many, read_origin, read_text

if TYPE_CHECKING:
    from comity.v1.node_pb2_grpc import NodeServiceAsyncStub


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Facts that a node reports about itself. `identity` has its member's inception and rotations, in order; `gateway`
    is its URL for HTTP clients; `replicas` is None in older software."""

    software: str
    origin: str
    node_record: bytes | None = None
    identity: tuple[bytes, ...] = ()
    addresses: bytes | None = None
    capabilities: tuple[str, ...] = ()
    gateway: GatewayUrl | None = None
    replicas: ReplicaCounts | None = None


@dataclass(frozen=True, slots=True)
class Charter:
    """The charter of one epoch: the body as it was hashed, and the lines that certify it."""

    epoch: int
    body: bytes
    certificate: tuple[bytes, ...]


def encode_node(facts: NodeFacts) -> node_pb2.GetNodeResponse:
    return node_pb2.GetNodeResponse(
        software=facts.software,
        origin=facts.origin,
        node_record=facts.node_record or b"",
        identity=facts.identity,
        addresses=facts.addresses,
        capabilities=facts.capabilities,
        gateway=None if facts.gateway is None else str(facts.gateway),
        replicas=None if facts.replicas is None else encode_counts(facts.replicas),
    )


def decode_node(message: node_pb2.GetNodeResponse) -> NodeFacts:
    return NodeFacts(
        software=read_text(message.software, "software name", limits.NAME),
        origin=read_origin(message.origin),
        node_record=read_line(message.node_record) if message.node_record else None,
        identity=read_many(message.identity, "identity lines", limits.IDENTITY_LINES, read_line),
        addresses=read_line(message.addresses) if message.HasField("addresses") else None,
        capabilities=read_many(
            message.capabilities,
            "capabilities",
            limits.CAPABILITIES,
            lambda name: read_text(name, "capability", limits.LABEL),
        ),
        gateway=GatewayUrl.parse(message.gateway) if message.HasField("gateway") else None,
        replicas=decode_counts(message.replicas) if message.HasField("replicas") else None,
    )


def encode_counts(counts: ReplicaCounts) -> node_pb2.ReplicaCounts:
    return node_pb2.ReplicaCounts(
        held=counts.held,
        lacking=counts.lacking,
        min_copies=counts.min_copies,
        counted=counts.counted,
        short=counts.short,
    )


def decode_counts(message: node_pb2.ReplicaCounts) -> ReplicaCounts:
    return ReplicaCounts(
        held=read_integer(message.held, "held artifacts"),
        lacking=read_integer(message.lacking, "lacking artifacts"),
        min_copies=read_integer(message.min_copies, "copies"),
        counted=read_integer(message.counted, "counted artifacts"),
        short=read_integer(message.short, "short artifacts"),
    )


def encode_charter(part: Charter) -> node_pb2.GetCharterResponse:
    return node_pb2.GetCharterResponse(epoch=part.epoch, body=part.body, certificate=part.certificate)


def decode_charter(message: node_pb2.GetCharterResponse) -> Charter:
    """Decode one part of a charter, with parts of its body and certificate."""
    return Charter(
        epoch=read_integer(message.epoch, "epoch"),
        body=read_data(message.body, "charter body", limits.CHARTER_BODY),
        certificate=read_many(message.certificate, "lines", limits.CERTIFICATE_LINES, read_line),
    )


def join_charter(epoch: int, parts: Iterable[Charter]) -> Charter:
    """Join the parts of a charter, in order. Raises Malformed above a limit."""
    pieces = list(parts)
    body = b"".join(part.body for part in pieces)
    certificate = tuple(line for part in pieces for line in part.certificate)
    if len(body) > limits.CHARTER_BODY or len(certificate) > limits.CERTIFICATE_LINES:
        why = f"at most {limits.CHARTER_BODY} bytes of body and {limits.CERTIFICATE_LINES} lines"
        raise Malformed("charter too large", why=why)
    return Charter(epoch, body, certificate)


class NodeCalls(ServiceCalls):
    """The calls of `NodeService`."""

    @cached_property
    def _node(self) -> NodeServiceAsyncStub:
        return NodeServiceStub(self._calls.connection.channel)

    async def node(self) -> NodeFacts:
        return decode_node(await self._calls.unary(self._node.GetNode, node_pb2.GetNodeRequest()))

    async def charter(self, epoch: int | None = None) -> Charter:
        """Returns the charter of an epoch, by default the newest that the node has. Raises NotFound."""
        request = node_pb2.GetCharterRequest(epoch=epoch)
        parts = await self._calls.all(self._node.GetCharter, request, decode_charter, limits.CERTIFICATE_LINES)
        if len({part.epoch for part in parts}) != 1 or epoch not in (None, parts[0].epoch):
            raise Malformed("the answer is not one charter", why="its parts belong to another epoch or to several")
        return join_charter(parts[0].epoch, parts)


class NodeReads(Protocol):
    async def node(self) -> NodeFacts: ...

    async def charter(self, epoch: int | None) -> Charter:
        """Returns the charter of an epoch; None means the newest. Raises NotFound."""


class NodeServicer(NodeServiceServicer):
    def __init__(self, node: NodeReads) -> None:
        self._node = node

    async def GetNode(self, request: node_pb2.GetNodeRequest, context: Context) -> node_pb2.GetNodeResponse:
        return encode_node(await self._node.node())

    async def GetCharter(
        self, request: node_pb2.GetCharterRequest, context: Context
    ) -> AsyncIterator[node_pb2.GetCharterResponse]:
        epoch = read_integer(request.epoch, "epoch") if request.HasField("epoch") else None
        for part in charter_parts(await self._node.charter(epoch)):
            yield encode_charter(part)


def charter_parts(charter: Charter) -> Iterable[Charter]:
    """Splits a charter into parts that fit into one message."""
    for start in range(0, len(charter.body), limits.CHUNK):
        yield Charter(charter.epoch, charter.body[start : start + limits.CHUNK], ())
    for lines in batches(charter.certificate):
        yield Charter(charter.epoch, b"", lines)
