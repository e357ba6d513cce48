"""Sessions with the nodes of the pinned federations.

A node is identified by its record, which the pinned charter body proves; only the TLS certificate in the record is
accepted. Of several addresses each is tried a little after the one before; where none leads to the node, others are
asked what it announced (`known_addresses`). Answers are not trusted here. All nodes are asked at once, or one after the
other with hedging, so that a slow node does not delay the others. Also here: the claimed gateway URL of a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shlex
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

from comity.federation_file import Federation
from comity.trust.charter.document import Member
from comity.trust.charter.federation import FederationNode
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.evidence import EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.home_logs import HomeLogs, NamedLog, OriginOwners, home_logs, home_name, home_origin, origin_owners
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Entry
from comity.trust.tlog.note import VerifierKey
from comity.wire.addresses import Address, GatewayUrl
from comity.wire.asking import AnswerTimes, everyone, first, outcomes, patiently
from comity.wire.channels import EarlyChannels
from comity.wire.client import NodeClient
from comity.wire.draining import DRAINING
from comity.wire.messages import LocatedEntry
from comity.wire.tls import CertificatePin

from comity_client.ahead import AskedAhead
from comity_client.known_addresses import KeptAddresses, KnownAddresses

T = TypeVar("T")
ANSWER_TIMEOUT: Final = 15.0
"""Seconds that a node may take to answer while no other node has answered."""
GRACE_PERIOD: Final = 2.0
"""Seconds that other nodes have after the first good answer."""
NEXT_ADDRESS: Final = 0.5
"""Seconds after which the next address of a node is tried beside one at which it was not reached yet (RFC 8305)."""
MAX_ENDING: Final = 4
"""Connections of a node that are kept beside new ones, because the process that they lead to ends."""
CONNECT_TIMEOUT: Final = 20.0
"""Seconds in which a node is to be reached at one of its addresses."""
ALONE: Final = 3.0
"""Seconds after which others are asked where a node is that is not reached at the addresses that are known."""
AHEAD: Final = 16
"""Nodes to which connections are opened before there is a question."""
WHERE_TIMEOUT: Final = 5.0
"""Seconds in which others are to say where a node is."""
ASKED_WHERE: Final = 3
"""Nodes that are asked where another one is: one of them may not know, or tell what was before."""
FRONT_END: Final = "FRONT-END"
"""The code with which a front end leaves a question to its node's writer."""
WRONG_NODE: Final = "PIN-MISMATCH"
NOT_THERE: Final = frozenset({"UNREACHABLE", "NO-TLS", WRONG_NODE, "DEADLINE", "SLOW"})
"""Codes of errors after which others are asked where a node is: it may not be at an address any more."""
NO_PIN: Final = "comity trust pin FILE"
Question: TypeAlias = "Callable[[NodeClient], Awaitable[T]]"
OnFault: TypeAlias = "Callable[[RemoteNode, ComityError], None]"
"""Called with nodes whose answers are Malformed or Untrusted; the answer of another node is used instead."""


@dataclass(eq=False)
class RemoteNode:
    """A node of a pinned federation. Connections are opened at the first call, one per address. `former`: the pinned
    charter no longer lists its member.

    Attributes:
        addresses: those of the federation file.
        left_out: why it is not asked in this session, such as in a drill that cuts it off; empty if it is.
        announced: where else it may be reached, by its own word; None where nobody can be asked.
        early: connections that were begun before the session, of which one may be to it.
    """

    record: NodeRecord
    line: bytes
    member: Member
    addresses: tuple[str, ...]
    former: bool = False
    left_out: str = ""
    announced: KnownAddresses | None = field(default=None, repr=False)
    early: EarlyChannels | None = field(default=None, repr=False)
    _clients: dict[str, NodeClient] = field(default_factory=dict, repr=False)
    _ending: list[NodeClient] = field(default_factory=list, repr=False)
    """Connections to processes that end."""
    _answers_at: str = ""
    """The address that answered last."""
    _times: AnswerTimes[str] = field(
        default_factory=lambda: AnswerTimes[str](time.monotonic, first_patience=NEXT_ADDRESS), repr=False
    )
    _choosing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _noting: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def jurisdiction(self) -> str:
        return self.member.jurisdiction

    @property
    def numeric(self) -> bool:
        """Whether an address of the federation file needs no DNS."""
        return any(Address.parse(address).target.startswith("ipv") for address in self.addresses)

    @property
    def answers(self) -> bool:
        """Whether it has answered in this session, and its address was not left since."""
        return bool(self._answers_at)

    async def ask(self, question: Question[T], *, further: bool = True) -> T:
        """Call the node at one address after the other until one is reachable, and is no front end that leaves this
        question to the node's writer. Waits while the node limits the rate of calls. Raises the error of the last
        pinned address.

        Args:
            further: ask other nodes where it is, if no known address leads to it.
        """
        failed: dict[str, ComityError] = {}
        while address := await self.reached(failed, further=further):
            try:
                answer = await patiently(partial(question, self.client(address)))
            except NotFound:
                raise
            except Unavailable as error:
                self.left(address, error)
                failed[address] = error
            except Refused as error:
                if error.code not in (FRONT_END, WRONG_NODE):
                    raise
                failed[address] = error
            else:
                self._answers_at = address
                return answer
        raise next((failed[each] for each in reversed(failed) if each in self.addresses), _no_address(self))

    async def reached(self, failed: MutableMapping[str, ComityError], *, further: bool = True) -> str:
        """Return an address at which the node can be called: the one that answered last, or the first of several that
        can be connected to, each a little after the one before. Empty if none is left.

        Args:
            failed: addresses that are not tried; those that cannot be reached are added.
            further: ask other nodes where it is, if no known address leads to it.
        """
        if self._answers_at and self._answers_at not in failed:
            return self._answers_at
        if not further or self.announced is None or self.left_out:
            return await self._one_of(failed, CONNECT_TIMEOUT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALONE):
                if address := await self._one_of(failed, CONNECT_TIMEOUT):
                    return address
        if failed and not any(error.code in NOT_THERE for error in failed.values()):
            return ""
        await self.announced.look()
        return await self._one_of(failed, CONNECT_TIMEOUT)

    def left(self, address: str, why: ComityError) -> None:
        """A call at an address failed: another one is tried before it. Where its process ends, the next connection may
        lead to another one, behind a load balancer; what runs over this one goes on."""
        if self._answers_at == address:
            self._answers_at = ""
        if why.code == DRAINING and len(self._ending) < MAX_ENDING and address in self._clients:
            self._ending.append(self._clients.pop(address))

    def client(self, address: str) -> NodeClient:
        if address not in self._clients:
            target = self.announced.target(address) if self.announced else Address.parse(address)
            pin = CertificatePin.of(self.record.tls)
            self._clients[address] = NodeClient.connect(target, pin, proxy=True, early=self.early)
        return self._clients[address]

    def begin_connecting(self) -> None:
        """Open the connection to the first address of the federation file, without waiting for it."""
        if self.addresses and not self._clients and self._known()[:1] == [self.addresses[0]]:
            self.client(self.addresses[0]).begin_connecting()

    def note_addresses(self) -> None:
        """Begin to ask the node itself, once, where else it may be reached: for a transfer that may outlast one of its
        front ends. At an address that answers."""
        if self._noting is None and self.announced is not None and self._answers_at:
            self._noting = asyncio.create_task(self._note(self.announced, self.client(self._answers_at)))

    async def _note(self, announced: KnownAddresses, client: NodeClient) -> None:
        with contextlib.suppress(ComityError):  # the transfer goes on without
            if line := (await client.node()).addresses:
                announced.told(line)

    async def close(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)
        for client in (*self._clients.values(), *self._ending):
            await client.close()

    def _known(self) -> list[str]:
        if self.left_out:
            return []
        announced = self.announced.addresses if self.announced else ()
        return list(dict.fromkeys((*announced, *self.addresses)))

    async def _one_of(self, failed: MutableMapping[str, ComityError], seconds: float) -> str:
        async with self._choosing:
            usable = [address for address in self._known() if address not in failed]
            if self._answers_at in usable:
                return self._answers_at
            try:
                async with asyncio.timeout(seconds):
                    found = await first(self._times, usable, self._connected, _no_address(self), places=1)
            except TimeoutError:
                slow = Unavailable(f"{self.name} cannot be reached", why=f"no connection in {seconds:g} s", code="SLOW")
                failed.update(dict.fromkeys(usable, slow))
                return ""
            except ComityError as error:
                failed.update(dict.fromkeys(usable, error))
                return ""
            self._answers_at = found
            return found

    async def _connected(self, address: str) -> str:
        """Raises Unavailable, and for an address of the federation file what `NodeClient.connected` raises."""
        try:
            if self.announced is not None:
                await self.announced.permit(address)
            await self.client(address).connected()
        except BaseException as error:
            slow = isinstance(error, asyncio.CancelledError) and address in self.addresses
            if not slow and (client := self._clients.pop(address, None)) is not None:
                await client.close()  # it would go on trying, as one may that is only slow and of the federation file
            if isinstance(error, Refused) and address not in self.addresses:
                what = f"{address} does not lead to {self.name}"
                raise Unavailable(what, why=error.why, code="UNREACHABLE") from error
            raise
        if self.announced is not None:
            self.announced.reached(address)
        return address


def _no_address(node: RemoteNode) -> ComityError:
    why = f"it is left out: {node.left_out}" if node.left_out else "no open address is known"
    return Unavailable(f"{node.name} cannot be reached", why=why)


@frozen
class HomeNode:
    """The node that writes an identity's home log; `home` names the log."""

    home: str

    def __str__(self) -> str:
        return home_origin(self.home)


Target: TypeAlias = str | HomeNode
"""A node as a user names it, or as an identity's home log does."""


def home_target(home: str) -> tuple[HomeNode, ...]:
    """Return the node of an identity's home log, to log its statements there; none if it names no home log."""
    return (HomeNode(home),) if home else ()


@frozen
class Answers(Generic[T]):
    """Answers of nodes. A node that was too slow is in `failed`, with Unavailable."""

    found: Mapping[RemoteNode, T]
    failed: Mapping[RemoteNode, ComityError]

    def failure(self, what: str, *, otherwise: str = "") -> ComityError:
        """Return an error that sums up why no node answered: the common kind if all errors agree, else Unavailable.

        Args:
            otherwise: the hint if all errors are NotFound.
        """
        if not self.failed:
            return Unavailable(what, why="no federation is pinned, so no node is known", hint=NO_PIN, code="NO-NODES")
        why = self._reasons()
        for kind in (NotFound, Untrusted, Refused):
            if all(isinstance(error, kind) for error in self.failed.values()):
                return kind(what, why=why, hint=otherwise if kind is NotFound else "")
        return Unavailable(what, why=why, hint="comity status", code="UNREACHABLE")

    def _reasons(self) -> str:
        """The nodes' errors as text, each once: `NODE, NODE: ERROR; NODE: ERROR`."""
        names: dict[str, list[str]] = {}
        for node, error in self.failed.items():
            names.setdefault(str(error), []).append(node.name)
        return "; ".join(f"{', '.join(sorted(nodes))}: {error}" for error, nodes in names.items())


class Session:
    """The nodes of all pinned federations; a node of several federations is listed once.

    `reader` parses what the nodes say: each line and proof once in this session, and each signature is checked once.
    `early`: connections that were begun before, of which some may be to these nodes.
    """

    def __init__(
        self,
        pins: Iterable[Federation],
        on_fault: OnFault = lambda node, error: None,
        reader: EvidenceReader | None = None,
        kept: KeptAddresses | None = None,
        early: EarlyChannels | None = None,
    ) -> None:
        self.pins = tuple(pins)
        self.reader = reader or EvidenceReader()
        self._on_fault = on_fault
        nodes = [node for federation in self.pins for node in _nodes(federation)]
        self.nodes = tuple({node.record: node for node in nodes}.values())
        self._times = AnswerTimes[RemoteNode](time.monotonic)
        self.ahead = AskedAhead()
        self._learn_addresses(kept or KeptAddresses())
        for node in self.nodes:
            node.early = early

    async def close(self) -> None:
        """End what was asked ahead, and close all connections. Raises as `AskedAhead.close`, when they are closed."""
        try:
            await self.ahead.close()
        finally:
            for node in self.nodes:
                await node.close()

    async def begin_connecting(self) -> None:
        """Open connections to the first nodes, without waiting: their handshakes, of three round trips, take place
        while this process reads what it has. For work that begins with a question to all."""
        for node in self.nodes[:AHEAD]:
            node.begin_connecting()

    def _learn_addresses(self, kept: KeptAddresses) -> None:
        listed = [address for node in self.nodes for address in node.addresses]
        for node in self.nodes:
            ask_others = partial(self._where_is, node)
            node.announced = KnownAddresses(node.record, node.addresses, listed, kept, self.reader, ask_others)

    async def _where_is(self, node: RemoteNode) -> list[LocatedEntry]:
        """What a few other nodes have about a node, those first that have answered in this session."""
        others = [other for other in self.nodes if other is not node]
        random.shuffle(others)  # so that the same ones, which may tell what was before, are not always asked
        others.sort(key=lambda other: not other.answers)
        asked = await everyone(
            self._times,
            others[:ASKED_WHERE],
            lambda other: other.ask(lambda client: client.claims(node.record.node.id), further=False),
            seconds=WHERE_TIMEOUT,
            grace=GRACE_PERIOD,
        )
        return [located for found in asked.found.values() for located in found]

    def records(self) -> tuple[Entry, ...]:
        """Return the entries of the proven node records."""
        return tuple(self.reader.entry(line) for line in dict.fromkeys(node.line for node in self.nodes))

    @cached_property
    def origins(self) -> OriginOwners:
        """The owners of the origins of logs, by the pinned charters."""
        return OriginOwners.of_all(origin_owners(pin.chain, pin.identity_entries) for pin in self.pins)

    def home_logs(self, home: str) -> HomeLogs:
        """Return the logs that an identity's `home` means, by the records of the pinned nodes."""
        named = NamedLog.parse(home)
        return home_logs([named] if named else [], (node.record for node in self.nodes), self.origins)

    def home_named(self, home: str) -> str:
        """Return the text by which a new statement names the log that a person names by its origin: with its key if the
        pinned charters and nodes say which log that is."""
        logs = self.home_logs(home).logs
        return home_name(VerifierKey.parse(logs[0])) if len(logs) == 1 else home

    def home_node(self, home: str) -> RemoteNode:
        """Return the node that writes the home log that an identity's `home` names, or its newest successor. If no
        pinned node has a log with that key, it is the node of the owner of the origin. Raises NotFound."""
        self.require_nodes()
        for name in (home, home_origin(home)):
            for logs in reversed(self.home_logs(name).ranks):
                if found := [node for node in self.nodes if str(node.record.log) in logs]:
                    return found[0]
        known = ", ".join(sorted({node.record.origin for node in self.nodes}))
        why = f"logs of pinned federations: {known}; of several logs with one origin, name one by its verifier key"
        raise NotFound(f"no node writes {home!r}", why=why, hint="comity status")

    def require_nodes(self) -> None:
        """Raises NotFound (NO-NODES) if no node is known."""
        if not self.nodes:
            raise NotFound("no node is known", why="no federation is pinned", hint=NO_PIN, code="NO-NODES")

    def _of_owner(self, name: str, found: Sequence[RemoteNode]) -> RemoteNode:
        owned = self.home_logs(f"{name}/log").logs
        if decided := [node for node in found if str(node.record.log) in owned]:
            return decided[0]
        raise Conflict(
            f"nodes of {len({node.member.id for node in found})} members are meant by {name!r}",
            why="; ".join(f"{node.record.log} of {node.member.name} ({node.member.jurisdiction})" for node in found),
            hint=f"name one by the key of its log: --node {shlex.quote(str(found[0].record.log))}",
            code="AMBIGUOUS-NODE",
        )

    def named(self, name: str) -> RemoteNode:
        """Find a node by the verifier key of its log, its own name, the origin of its log, its member's name, its
        address, or a URL with its address or host, in this order. Of several logs with one origin, it is the one that
        would be the home log of an identity that names this origin, if there is one. A node chooses its name: of nodes
        of several members with one NAME, it is that of the owner of the origin NAME/log, as `comity init` makes it.

        Raises NotFound, and Conflict (AMBIGUOUS-NODE) if several members' nodes have the name and none is the owner's.
        """
        self.require_nodes()
        url = urlsplit(name) if "://" in name else None
        address, host = (url.netloc.rpartition("@")[2], url.hostname or "") if url else (name, "")
        logs = cache(lambda: self.home_logs(name).logs)  # once, and only where no name decides before
        tests: tuple[Callable[[RemoteNode], bool], ...] = (
            lambda node: name == str(node.record.log),
            lambda node: name == node.name,
            lambda node: str(node.record.log) in logs(),
            lambda node: name == node.record.origin,
            lambda node: name == node.member.name,
            lambda node: address in node.addresses,
        )
        for test in tests:
            if found := [node for node in self.nodes if test(node)]:
                return found[0] if len({node.member.id for node in found}) == 1 else self._of_owner(name, found)
        found = [node for node in self.nodes if host and any(Address.parse(at).host == host for at in node.addresses)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(node.name for node in self.nodes)
        raise NotFound(f"no node {name!r}", why=f"known from pinned federations: {known}", hint="comity status")

    async def ask(self, question: Question[T]) -> Answers[T]:
        """Call all nodes at once. Errors of nodes are returned, not raised.

        Returns when all have answered, `GRACE_PERIOD` seconds after the first good answer, or after `ANSWER_TIMEOUT`
        seconds. Nodes that were too slow before are called again, but not waited for after the others have answered.
        """
        return await self.ask_each(lambda node: question, self.nodes)

    async def ask_each(
        self,
        question: Callable[[RemoteNode], Question[T]],
        nodes: Iterable[RemoteNode],
        *,
        enough: Callable[[Mapping[RemoteNode, T]], bool] = bool,
    ) -> Answers[T]:
        """As `ask`, of some nodes, and each its own question.

        Args:
            enough: whether slow nodes are not waited for, where so much was found; default: after one good answer.
        """
        asked = await everyone(
            self._times,
            nodes,
            lambda node: self._asked(question(node))(node),
            seconds=ANSWER_TIMEOUT,
            grace=GRACE_PERIOD,
            enough=enough,
        )
        return Answers(asked.found, asked.failed)

    def soonest(self, nodes: Iterable[RemoteNode], count: int) -> list[RemoteNode]:
        """The nodes that will probably answer first; of equal ones any, so that not all clients ask the same ones."""
        order = list(nodes)
        random.shuffle(order)
        return sorted(order, key=lambda node: (self._times.is_late(node), self._times.patience(node)))[:count]

    async def answers(self, question: Question[T], *, first: Collection[RemoteNode] = ()) -> AsyncGenerator[T, None]:
        """Yield good answers. The next node is called when those before it failed, did not satisfy the caller, or take
        longer than they usually need. The caller closes the generator when it has enough.

        Args:
            first: nodes that are called before others that are as fast.
        """
        async with aclosing(self._outcomes(question, first)) as outcomes:
            async for _, outcome in outcomes:
                if not isinstance(outcome, ComityError):
                    yield outcome

    async def first(self, question: Question[T], what: str) -> T:
        """Return the first good answer. Raises NotFound, Untrusted or Unavailable with the error of each node."""
        failed: dict[RemoteNode, ComityError] = {}
        async with aclosing(self._outcomes(question)) as outcomes:
            async for node, outcome in outcomes:
                if not isinstance(outcome, ComityError):
                    return outcome
                failed[node] = outcome
        none_found: Answers[T] = Answers({}, failed)
        raise none_found.failure(what)

    def _outcomes(
        self, question: Question[T], first: Collection[RemoteNode] = ()
    ) -> AsyncGenerator[tuple[RemoteNode, T | ComityError], None]:
        nodes = sorted(self.nodes, key=lambda node: (self._times.is_late(node), node not in first))
        return outcomes(self._times, nodes, self._asked(question), places=1)

    def _asked(self, question: Question[T]) -> Callable[[RemoteNode], Coroutine[Any, Any, T]]:
        async def ask(node: RemoteNode) -> T:
            try:
                return await node.ask(question)
            except (Malformed, Untrusted) as error:
                self._on_fault(node, error)
                raise

        return ask


@asynccontextmanager
async def open_session(
    pins: Iterable[Federation],
    on_fault: OnFault = lambda node, error: None,
    reader: EvidenceReader | None = None,
    kept: KeptAddresses | None = None,
) -> AsyncIterator[Session]:
    """Open a session; its connections close with the block.

    Args:
        reader: the reader with which the pins were parsed; default: a new one.
        kept: what was announced in earlier sessions; default: nothing, and nothing is kept.
    """
    session = Session(pins, on_fault, reader, kept)
    try:
        yield session
    finally:
        await session.close()


def _nodes(federation: Federation) -> list[RemoteNode]:
    """Return the nodes with the newest entry of their member. Nodes of removed members still serve and are included."""
    members = {member.id: member for body in federation.chain for member in body.members}
    return [
        RemoteNode(node.record, node.line, members[node.record.member], node.open, former=not _listed(federation, node))
        for node in federation.nodes
    ]


def _listed(federation: Federation, node: FederationNode) -> bool:
    return federation.body.member(node.record.member) is not None


@frozen
class ClaimedGateway:
    """The gateway URL that a node claims; not proven."""

    node: str
    url: GatewayUrl


async def claimed_gateway(session: Session, name: str = "") -> ClaimedGateway:
    """Ask a node for its gateway URL: the node with this name, or the only known one. The connection is authenticated
    by the pinned certificate; the gateway behind the URL is not.

    Raises NotFound (NO-NODES, NO-GATEWAY), Malformed (GATEWAY-URL) for an invalid URL, and connection errors.
    """
    node = session.named(name) if name else _only_node(session)
    url = (await node.ask(lambda client: client.node())).gateway
    if url is None:
        raise _no_gateway(node, "the node has no `url` in [gateway], or its software is older than that setting")
    if url.address.is_loopback and not any(Address.parse(address).is_loopback for address in node.addresses):
        raise _no_gateway(node, f"the node claims {url}, which is an address of this machine")
    return ClaimedGateway(node.name, url)


def _only_node(session: Session) -> RemoteNode:
    session.require_nodes()
    if len(session.nodes) > 1:
        known = ", ".join(node.name for node in session.nodes)
        hint = f"name one: --node {session.nodes[0].name}"
        raise NotFound("the node is not unique", why=f"pinned federations have {known}", hint=hint, code="NO-GATEWAY")
    return session.nodes[0]


def _no_gateway(node: RemoteNode, why: str) -> NotFound:
    hint = "ask its operator for the URL, then: comity env --node URL"
    return NotFound(f"{node.name} claims no usable gateway", why=why, hint=hint, code="NO-GATEWAY")
