"""Talking to the nodes of the pinned federations, all at once: the fast answer first, the slow never in the way.

Who a node is comes from its record, proven by the pinned charter body; its TLS certificate there is the only one
accepted. Addresses are hints, tried in turn. What nodes answer is believed nowhere in this room.


Where a node says that its gateway is: its own claim, by the connection that its pinned certificate answers for, and
nothing that anybody proves. What is behind the URL is a matter between the client and its certificate there.

A node as its operators see it: asked over its Unix socket, on its own machine. What it says of itself is taken as
said; whoever may use the socket may also read the node's disk.

A node as a source of bytes for `comity.transfer`, in two ways: gRPC streams, and HTTPS ranges where it has them.

Talking to nodes: the session over all of them, a node as a source of bytes, a node that takes statements."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

from comity.transfer.sources import RangeSource, SourceKey
from comity.trust.charter.document import Member
from comity.trust.charter.federation import Federation
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.statements import NodeRecord
from comity.wire.client import NodeClient
from comity.wire.messages import GatewayUrl, NodeStatus
from comity.wire.tls import Address, CertificatePin
from comity_client.founding import settings_of

T = TypeVar("T")

PATIENCE: Final = 15.0
"""Seconds that a node may take to answer when nobody else has."""
GRACE: Final = 2.0
"""Seconds that the others still have once one node has answered."""
HEDGE: Final = 1.0
"""Seconds after which a node that is asked for bytes that any node could give is no longer relied on alone."""
NO_PIN: Final = "comity trust pin FILE"

Question: TypeAlias = "Callable[[NodeClient], Awaitable[T]]"
OnFault: TypeAlias = "Callable[[RemoteNode, ComityError], None]"
"""Told of nodes whose answers are Malformed or Untrusted: somebody else's answer is used then."""


@dataclass(eq=False)
class RemoteNode:
    """A node of a pinned federation. Its connections are made with its first call, one for each address."""

    record: NodeRecord
    line: bytes
    member: Member
    addresses: tuple[str, ...]
    _clients: dict[str, NodeClient] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def jurisdiction(self) -> str:
        return self.member.jurisdiction

    async def ask(self, question: Question[T]) -> T:
        """Ask at one address after the other until one is reached. Raises what the last one gave."""
        failure: ComityError = Unavailable(f"{self.name} cannot be reached", why="no open address of it is known")
        for address in self.addresses:
            try:
                return await question(self.client(address))
            except NotFound:
                raise
            except Unavailable as error:
                failure = error
        raise failure

    def client(self, address: str) -> NodeClient:
        if address not in self._clients:
            pin = CertificatePin.of(self.record.tls)
            self._clients[address] = NodeClient.connect(Address.parse(address), pin, proxy=True)
        return self._clients[address]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What nodes said. One that was too slow is among the `failed`, with Unavailable."""

    found: Mapping[RemoteNode, T]
    failed: Mapping[RemoteNode, ComityError]

    def failure(self, what: str, *, otherwise: str = "") -> ComityError:
        """The error that sums up why nobody could answer: of their own kind where all agree, else Unavailable.

        Args:
            otherwise: the next command where all agree that it is not there.
        """
        if not self.failed:
            return Unavailable(what, why="no federation is pinned, so no node is known", hint=NO_PIN, code="NO-NODES")
        why = "; ".join(f"{node.name}: {error}" for node, error in self.failed.items())
        for kind in (NotFound, Untrusted, Refused):
            if all(isinstance(error, kind) for error in self.failed.values()):
                return kind(what, why=why, hint=otherwise if kind is NotFound else "")
        return Unavailable(what, why=why, hint="comity status", code="UNREACHABLE")


class Session:
    """The nodes of all pinned federations, each once however many federations it is in."""

    def __init__(self, pins: Iterable[Federation], on_fault: OnFault = lambda node, error: None) -> None:
        self.pins = tuple(pins)
        self._on_fault = on_fault
        nodes = [node for federation in self.pins for node in _nodes(federation)]
        self.nodes = tuple({node.record: node for node in nodes}.values())
        self._slow: set[RemoteNode] = set()

    def records(self) -> tuple[bytes, ...]:
        """The lines of the proven node records."""
        return tuple(dict.fromkeys(node.line for node in self.nodes))

    def named(self, name: str) -> RemoteNode:
        """The node that `name` names: by its own name, its log's, its member's, or an address. Raises NotFound."""
        for node in self.nodes:
            if name in (node.name, node.record.origin, node.member.name, *node.addresses):
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise NotFound(f"no node {name!r}", why=f"known from pinned federations: {known}", hint="comity status")

    async def ask(self, question: Question[T]) -> Answers[T]:
        """Put a question to all nodes at once. Raises nothing for what they fail to answer.

        Returns when all have answered, `GRACE` seconds after the first good answer, or after `PATIENCE` seconds. Nodes
        that were too slow once are asked again, and waited for no longer than the others take.
        """
        clock = asyncio.get_running_loop().time
        found: dict[RemoteNode, T] = {}
        failed: dict[RemoteNode, ComityError] = {}
        async with self._asking(question) as tasks:
            waiting, ends = set(tasks), clock() + PATIENCE
            while waiting and not (found and all(tasks[task] in self._slow for task in waiting)):
                done, waiting = await asyncio.wait(waiting, timeout=ends - clock(), return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    node, outcome = tasks[task], task.result()
                    self._slow.discard(node)
                    if isinstance(outcome, ComityError):
                        failed[node] = outcome
                    else:
                        found[node] = outcome
                        ends = min(ends, clock() + GRACE)
            for task in waiting:
                failed[tasks[task]] = Unavailable("no answer yet", why="others were faster", code="SLOW")
                self._slow.add(tasks[task])
        return Answers(found, failed)

    async def answers(self, question: Question[T]) -> AsyncGenerator[T, None]:
        """Good answers, one node's after the other's: the next one is asked when those before it have failed, did not
        satisfy the caller, or took `HEDGE` seconds. To be closed by a caller who has enough."""
        async with aclosing(self._outcomes(question)) as outcomes:
            async for _, outcome in outcomes:
                if not isinstance(outcome, ComityError):
                    yield outcome

    async def first(self, question: Question[T], what: str) -> T:
        """The first good answer. Raises NotFound, Untrusted or Unavailable, telling what each node said."""
        failed: dict[RemoteNode, ComityError] = {}
        async with aclosing(self._outcomes(question)) as outcomes:
            async for node, outcome in outcomes:
                if not isinstance(outcome, ComityError):
                    return outcome
                failed[node] = outcome
        nobody: Answers[T] = Answers({}, failed)
        raise nobody.failure(what)

    async def _outcomes(self, question: Question[T]) -> AsyncGenerator[tuple[RemoteNode, T | ComityError], None]:
        unasked = sorted(self.nodes, key=lambda node: node in self._slow)
        tasks: dict[asyncio.Task[T | ComityError], RemoteNode] = {}
        try:
            while unasked or tasks:
                if unasked:
                    node = unasked.pop(0)
                    tasks[asyncio.create_task(self._outcome(node, question))] = node
                patience = HEDGE if unasked else None
                done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield tasks.pop(task), task.result()
        finally:
            await _cancel(tasks)

    @asynccontextmanager
    async def _asking(self, question: Question[T]) -> AsyncIterator[dict[asyncio.Task[T | ComityError], RemoteNode]]:
        """One task a node; those still under way at the end of the block are cancelled and waited for."""
        tasks = {asyncio.create_task(self._outcome(node, question)): node for node in self.nodes}
        try:
            yield tasks
        finally:
            await _cancel(tasks)

    async def _outcome(self, node: RemoteNode, question: Question[T]) -> T | ComityError:
        try:
            return await node.ask(question)
        except ComityError as error:
            if isinstance(error, Malformed | Untrusted):
                self._on_fault(node, error)
            return error


@asynccontextmanager
async def open_session(
    pins: Iterable[Federation], on_fault: OnFault = lambda node, error: None
) -> AsyncIterator[Session]:
    """A session whose connections end with the block."""
    session = Session(pins, on_fault)
    try:
        yield session
    finally:
        for node in session.nodes:
            await node.close()


async def _cancel(tasks: Iterable[asyncio.Task[T]]) -> None:
    under_way = tuple(tasks)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


def _nodes(federation: Federation) -> list[RemoteNode]:
    """Each with its member's newest seat: a node of a member that was removed goes on serving, and is asked."""
    members = {member.id: member for body in federation.chain for member in body.members}
    return [RemoteNode(node.record, node.line, members[node.record.member], node.open) for node in federation.nodes]


@dataclass(frozen=True, slots=True)
class ToldGateway:
    """What the node called `node` claims."""

    node: str
    url: GatewayUrl


async def told_gateway(session: Session, name: str = "") -> ToldGateway:
    """Ask the node that `name` names; without a name, the only one that is known.

    Raises NotFound (NO-NODES, NO-GATEWAY), Malformed (GATEWAY-URL) for what is no URL of a gateway, and what the
    connection raises.
    """
    node = session.named(name) if name else _only(session)
    url = (await node.ask(lambda client: client.node())).gateway
    if url is None:
        raise _none(node, "its operator wrote no `url` in [gateway], or its software is older than that setting")
    if url.address.is_loopback and not any(Address.parse(address).is_loopback for address in node.addresses):
        raise _none(node, f"it tells {url}, which is this machine and not the node's")
    return ToldGateway(node.name, url)


def _only(session: Session) -> RemoteNode:
    if not session.nodes:
        raise NotFound("no node is known", why="no federation is pinned", hint=NO_PIN, code="NO-NODES")
    if len(session.nodes) > 1:
        known = ", ".join(node.name for node in session.nodes)
        hint = f"name one: --node {session.nodes[0].name}"
        raise NotFound("which node's gateway?", why=f"pinned federations have {known}", hint=hint, code="NO-GATEWAY")
    return session.nodes[0]


def _none(node: RemoteNode, why: str) -> NotFound:
    hint = "ask its operator for the URL, and name it: comity env --url URL"
    return NotFound(f"{node.name} tells no gateway that can be used", why=why, hint=hint, code="NO-GATEWAY")


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
            CertificatePin.of(self._node.record.tls),
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
