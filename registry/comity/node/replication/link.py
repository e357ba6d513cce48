"""A connection to one peer, parts of a log over several connections, and the wait for the peers' first answers.

Addresses are hints: the mutual ones are tried first, then the open ones, in turn; those that the peer announces now, if
it proved them, before those of the pinned federation file (`announced`). A ledger restored from a backup does
not know that it is old, but peers do: at start each peer is asked once, and the node signs nothing before one has
answered, or a timeout has passed. If the ledger is known to be a copy, nodes of so many members must have answered that
some of them hold whatever a quorum held, even if as many of them lie as the charter tolerates.

The rate of one TCP connection is bounded by its losses and its round-trip time, whatever the link could carry. So the
parts of a log are shared out between connections, a few calls on each. What arrives is proven later, all together, as
if it had come over one.

    grows with                        bound                       at the bound
    connections to a peer             limits.CONNECTIONS          parts wait
    calls on a connection             CALLS_EACH                  parts wait
    entries received                  MAX_LINES, MAX_BYTES        the rest is left to the next step
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, MutableSequence, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog

from comity.node.members import Membership, Peer, PeerKey
from comity.node.replication.announced import AnnouncedAddresses, ProvenAddress, ported
from comity.node.replication.news import ANSWER_TIMEOUT, CALL_SECONDS, PeerNews
from comity.node.threads import Clock
from comity.transfer.range_source import RangeSource
from comity.transfer.sources import SourceKey
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.node_records import MAX_ADDRESSES
from comity.wire.addresses import Address
from comity.wire.asking import FIRST_PATIENCE
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin, TlsIdentity

MAX_CLIENTS: Final = 4 * MAX_ADDRESSES
"""Connections kept to one peer: mutual and open addresses, each with two certificates. A peer may move often."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds after which the first address is tried again after a failure: the first pause, and the longest."""


class AddressTurn:
    """Which of a peer's addresses the next call uses: after a failure the next one, and now and then the first again,
    which is the best. The pause before that doubles while the first one fails: a peer that has just started is soon
    called at its first address, and one behind a closed port is not called there in each round. The first is not tried
    again before the others were: the delay after a failed round may be longer than the pause."""

    def __init__(self) -> None:
        self._index = 0
        self._untried = False
        self._pause = FIRST_PAUSE
        self._first_at = 0.0

    def begin(self, now: float) -> None:
        """A round begins at the monotonic time `now`, in seconds."""
        if now >= self._first_at and not self._untried:
            self._index, self._first_at = 0, now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def failed(self, count: int) -> bool:
        """The call that used one of `count` addresses failed. Returns whether the next comes before the first again."""
        self._index = (self._index + 1) % max(1, count)
        self._untried = self._index != 0
        return self._untried

    def gone(self, count: int) -> bool:
        """The address that the call used is no more one of those, of which `count` are left. Returns as `failed`."""
        self._untried = self._index < count
        self._index = self._index if self._untried else 0
        return self._untried

    def answered(self, count: int) -> None:
        """The call that used one of `count` addresses was answered."""
        self._untried = False
        if count and self.index(count) == 0:
            self._pause = FIRST_PAUSE

    def index(self, count: int) -> int:
        """The index of the next one among `count` addresses."""
        return self._index % count


@dataclass(slots=True)
class PeerState:
    """The state of a peer, for the status.

    `lag` counts entries of the peer's log that are not copied yet; `level_since` is when there were last none, or the
    first round.
    """

    reachable: bool = False
    last_seen: int = 0
    lag: int = 0
    level_since: float | None = None
    last_error: str = ""


CALLS_EACH: Final = 2
"""Calls at once on each, so that none waits for a request to arrive."""
MANY_LINES: Final = 512
"""Entries for which several connections are made: each costs the peer a handshake."""
RANGE_LINES: Final = 256
"""Entries of one call, where there are several connections: what nodes send in one message."""
MAX_LINES: Final = 4096
MAX_BYTES: Final = 8 * 1024 * 1024
STEP_DEADLINE: Final = 60.0
"""Seconds for the entries of a step; side objects have their own limit."""

Connection = TypeVar("Connection")
Item = TypeVar("Item")


async def share_out(
    items: Iterable[Item],
    client: Connection,
    others: MutableSequence[Connection],
    work: Callable[[Connection, Item], Awaitable[None]],
    *,
    each: int = CALLS_EACH,
) -> None:
    """Do `work` for each item, begun in their order, `each` at once with each client.

    One of the `others` is removed from them once work with it is Unavailable, Refused or late; its items are done by
    the rest. Raises what `client` fails with, and any other failure.
    """
    waiting = deque(items)

    async def serve(used: Connection, *, first: bool) -> None:
        while waiting and (first or used in others):
            item = waiting.popleft()
            try:
                await work(used, item)
            except (Unavailable, Refused, TimeoutError):
                if first:
                    raise
                waiting.appendleft(item)
                if used in others:
                    others.remove(used)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(each):
                group.create_task(serve(client, first=True))
                for other in others:
                    group.create_task(serve(other, first=False))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await serve(client, first=True)  # what was given back after `client` had nothing left to do


async def fetch_entries(
    client: NodeClient,
    log: str,
    start: int,
    end: int,
    *,
    others: MutableSequence[NodeClient] | None = None,
    seconds: float = STEP_DEADLINE,
    received: Callable[[int], None] = lambda size: None,
) -> list[bytes]:
    """The next entries before `end`, at least one, bounded in number, bytes and time. `others` are further connections
    to the same peer. `received` is told the bytes of each message. Raises Untrusted (WITHHELD)."""
    clock = asyncio.get_running_loop().time
    end, ends, size = min(end, start + MAX_LINES), clock() + seconds, 0
    length = RANGE_LINES if others else MAX_LINES
    found = dict[int, list[bytes]]()

    async def fetch(used: NodeClient, first: int) -> None:
        nonlocal size
        if first > start and (size >= MAX_BYTES or clock() >= ends):
            return
        got = list[bytes]()
        async with aclosing(used.entries(log, first, min(end, first + length))) as batches:
            async for batch in batches:
                got.extend(batch.lines)
                size += (arrived := sum(map(len, batch.lines)))
                received(arrived)
                if size >= MAX_BYTES or clock() >= ends:
                    break
        found[first] = got

    await share_out(range(start, end, length), client, others if others is not None else [], fetch)
    lines = list[bytes]()
    while part := found.get(start + len(lines)):
        lines += part
    if not lines:
        why = f"no entry {start}, although its head has more than {start}"
        raise Untrusted("the peer withholds entries of a log", why=why, code="WITHHELD")
    return lines


class CopySource(Protocol):
    """What logs and files are copied from: a peer, or a bundle that is being loaded. It is also a source of
    `comity.transfer`."""

    state: PeerState

    @property
    def peer_key(self) -> PeerKey:
        """Whose turn it is when several sources are used."""

    @property
    def key(self) -> SourceKey: ...

    @property
    def host(self) -> SourceKey: ...

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str:
        """Empty if no call can be made."""

    @property
    def client(self) -> NodeClient:
        """Raises Unavailable (NO-ADDRESS)."""

    def more_connections(self, count: int) -> AbstractAsyncContextManager[list[NodeClient]]:
        """At most `count` further clients, each with a TCP connection of its own, which are closed at the end. Raises
        Unavailable (NO-ADDRESS)."""

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]: ...

    def over_https(self) -> RangeSource | None:
        """The same files over HTTPS, if it has such addresses. The caller closes it."""


@frozen
class _Endpoint:
    """An address, its kind of port, and the certificate expected there; `proven` if it is one that was announced."""

    address: str
    mutual: bool
    certificate: bytes
    proven: ProvenAddress | None = None

    @property
    def target(self) -> Address:
        return self.proven.target if self.proven else Address.parse(self.address)


class PeerLink:
    """Calls to one peer. Used only by that peer's loop, except as a file source."""

    def __init__(
        self, membership: Membership, announced: AnnouncedAddresses, tls: TlsIdentity, clock: Clock, peer: PeerKey
    ) -> None:
        self._membership = membership
        self._announced = announced
        self._tls = tls
        self._clock = clock
        self.peer_key = peer
        self.key = SourceKey("node", f"{peer.member} {peer.origin}")
        self._clients: dict[_Endpoint, NodeClient] = {}
        """In the order of their last use."""
        self._closing: set[asyncio.Task[None]] = set()
        self._known: tuple[Peer, tuple[ProvenAddress, ...], tuple[_Endpoint, ...]] | None = None
        """The record and the proven addresses for which the endpoints were listed last, and these."""
        self._turn = AddressTurn()
        self.state = PeerState()
        self.news = PeerNews()

    @property
    def peer(self) -> Peer:
        """The current record of the peer; its address may have changed."""
        peer = self._membership.peer(self.peer_key)
        assert peer is not None, "a link is made for a known peer, and peers are never forgotten"
        return peer

    @property
    def name(self) -> str:
        """A display name that is unique among the known nodes."""
        return self._membership.shown_name(self.peer)

    @property
    def host(self) -> SourceKey:
        return self.key

    @property
    def address(self) -> str:
        """The address of the next call; empty if none is known."""
        endpoints = self._endpoints()
        return endpoints[self._turn.index(len(endpoints))].address if endpoints else ""

    @property
    def client(self) -> NodeClient:
        """A client for the current address. Raises Unavailable (NO-ADDRESS)."""
        return self._client(self._endpoint)

    @property
    def _endpoint(self) -> _Endpoint:
        """Of the next call. Raises Unavailable (NO-ADDRESS)."""
        endpoints = self._endpoints()
        if not endpoints:
            unproven = self._announced.unproven(self.peer)
            why = "the federation file names none" + (
                f", and of those that it announced: {unproven}" if unproven else ""
            )
            raise Unavailable(f"no address of {self.name}", why=why, code="NO-ADDRESS")
        return endpoints[self._turn.index(len(endpoints))]

    @asynccontextmanager
    async def more_connections(self, count: int) -> AsyncIterator[list[NodeClient]]:
        async with AsyncExitStack() as stack:
            made = [await stack.enter_async_context(self._connect(self._endpoint)) for _ in range(count)]
            yield [client.with_timeout(ANSWER_TIMEOUT) for client in made]

    def authenticated(self) -> tuple[NodeClient, ...]:
        """Clients for the addresses at which the peer sees this node's certificate; the caller tries them in turn."""
        return tuple(self._client(endpoint) for endpoint in self._endpoints() if endpoint.mutual)

    def _client(self, endpoint: _Endpoint) -> NodeClient:
        client = self._clients.pop(endpoint, None) or self._connect(endpoint).with_timeout(ANSWER_TIMEOUT)
        self._clients[endpoint] = client
        if len(self._clients) > MAX_CLIENTS:
            self._close(next(iter(self._clients)))
        return client

    def _close(self, endpoint: _Endpoint) -> None:
        """End the connection to an endpoint after the calls that use it."""
        unused = self._clients.pop(endpoint, None)
        if unused is not None:
            closing = asyncio.create_task(unused.close(CALL_SECONDS), name="end of an old connection")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _connect(self, endpoint: _Endpoint) -> NodeClient:
        identity = self._tls if endpoint.mutual else None
        pin = CertificatePin.of(endpoint.certificate)
        return NodeClient.connect(endpoint.target, pin, identity)

    async def begin(self) -> None:
        """Begin a round: try an announced address that was not proven yet, and return to the first one now and then."""
        await self._announced.try_next(self.peer)
        self._turn.begin(asyncio.get_running_loop().time())

    def failed(self, error: ComityError) -> bool:
        """Use the next address for the next call. Returns whether it is to be tried before the first one is again."""
        self.state.reachable = False
        self.state.last_error = str(error)
        return self._next_address()

    def _next_address(self) -> bool:
        """The call that used the current address failed. Returns whether another one is left before the first one."""
        endpoints = self._endpoints()
        used = endpoints[self._turn.index(len(endpoints))] if endpoints else None
        if used is None or used.proven is None:
            return self._turn.failed(len(endpoints))
        self._announced.failed(self.peer, used.proven)
        self._close(used)
        return self._turn.gone(len(self._endpoints()))

    def seen(self, client: NodeClient) -> None:
        """The peer has answered a call of `client`, with the certificate that it pinned; since that call began the peer
        may have announced another one, or other addresses. An error in processing its answer stays in the state."""
        used = next((endpoint for endpoint, known in self._clients.items() if known is client), None)
        if used is not None:
            self._membership.certificate_seen(self.peer_key, used.certificate)
            if used.proven is not None:
                self._announced.answered(self.peer, used.proven)
        self._turn.answered(len(self._endpoints()))
        if not self.state.reachable:
            self.state.last_error = ""
        self.state.reachable = True
        self.state.last_seen = int(self._clock())

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Implements a source of `comity.transfer`."""
        try:
            async with aclosing(self.client.read(digest, offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except NotFound:
            raise
        except Unavailable:
            self._next_address()
            raise

    def over_https(self) -> RangeSource:
        """A source that reads from the same peer over HTTPS. The caller closes it."""
        pin = CertificatePin.of(self.peer.record.tls)
        permission = self._announced.permit(self.peer)
        return RangeSource(self.key, self.name, pin, lambda digest: self.client.locations(digest), permission)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for client in self._clients.values():
            await client.close()

    def _endpoints(self) -> tuple[_Endpoint, ...]:
        peer = self.peer
        proven = self._announced.proven(peer)
        if self._known is None or self._known[0] is not peer or self._known[1] != proven:
            self._known = peer, proven, _endpoints_of(peer, proven)
        return self._known[2]


def _endpoints_of(peer: Peer, proven: Iterable[ProvenAddress]) -> tuple[_Endpoint, ...]:
    """Where a peer is called, the best first: what it announced and proved, or announced and the pinned file lists, in
    the order in which it announced that; then what the file lists besides."""
    of = {(each.announced, each.mutual): each for each in proven}
    listed = {each: None for each in ported(peer.mutual, peer.open) if _usable(each[0])}
    order = dict.fromkeys((*ported(peer.announced_mutual, peer.announced_open), *listed))
    return tuple(
        _Endpoint(*each, certificate, of.get(each))
        for certificate in peer.certificates
        for each in order
        if each in listed or (each in of and of[each].certificate == certificate)
    )


def _usable(address: str) -> bool:
    with suppress(Malformed):
        Address.parse(address)
        return True
    return False


_log: Final = structlog.get_logger("comity.node")


@frozen
class AnswerQuorum:
    """The active members of a charter, of which `size` must have answered a node whose ledger is a copy. Its own member
    counts as one. Members without a known node cannot answer and are not waited for."""

    own: Digest
    members: frozenset[Digest]
    size: int

    def reached(self, answered: Set[Digest], known: Set[Digest]) -> bool:
        own = {self.own}
        return len(self.members & (answered | own)) >= min(self.size, len(self.members & (known | own)))


class StartBarrier:
    """The wait for first answers. Not thread-safe: call from the event loop.

    Args:
        peers: the known peers.
        timeout: seconds after which the node signs without an answer; None if it must not.
        quorum: the members that must have answered; None if one peer is enough.
    """

    def __init__(self, peers: Iterable[PeerKey], timeout: float | None, quorum: AnswerQuorum | None = None) -> None:
        self._waiting = set(peers)
        self._known = frozenset(peer.member for peer in self._waiting)
        self._answered = set[Digest]()
        self._quorum = quorum
        self._timeout = timeout
        self._enough = asyncio.Event()
        self._settled = asyncio.Event()
        self.no_peer_answered = False
        self._update()

    @property
    def settled(self) -> bool:
        return self._settled.is_set()

    def attempted(self, peer: PeerKey, *, answered: bool) -> None:
        """A peer has answered with all its heads, or could not be reached."""
        self._waiting.discard(peer)
        if answered:
            self._answered.add(peer.member)
        self._update()

    async def wait(self) -> None:
        """Return when the node may sign: when all peers have answered or failed, or the time is over. Where a quorum
        must have answered, the others are waited for only `FIRST_PATIENCE` seconds after that."""
        try:
            async with asyncio.timeout(self._timeout):
                if self._quorum is not None:
                    await self._enough.wait()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(FIRST_PATIENCE):
                            await self._settled.wait()
                else:
                    await self._settled.wait()
        except TimeoutError:
            self.no_peer_answered = not self._answered
            _log.warning("not all peers answered before the node signs", answered=len(self._answered))
        self._settled.set()

    def _update(self) -> None:
        answered = bool(self._answered) or not self._known
        enough = self._quorum is None or self._quorum.reached(self._answered, self._known)
        if answered and enough:
            self._enough.set()
            if not self._waiting:
                self._settled.set()
