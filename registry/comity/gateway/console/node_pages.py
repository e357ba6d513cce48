"""Pages of the node itself, for people who signed in.

    /-/node                      disk, queues, bandwidth, peers with their lag, warnings
    /-/node/waiting              what needs a human: votes, requests to join or for machines; with the exact command
    /-/node/settings             for operators: each setting with its source, and never the content of a secret's file
    /-/node/sessions             who is signed in; an operator ends sessions
    /-/node/tokens               who may read what through the gateway, until when, and when it was used last
    POST /-/node/tokens          makes a token, and shows it once
    POST /-/node/tokens/rotate   makes a successor, and shows it once; the old token ends a day later
    POST /-/node/tokens/revoke   ends a token at once
    /-/node/audit-log            for operators: what was done here; the newest lines, after the whole log was checked
    /-/node/costs                for operators: what membership costs in a year, by the operator's own prices
    /-/continuity                the last check of each continuity plan that the operator gave this node

Nothing here signs or votes: governance keys are on no node. The status is kept for `FRESH` seconds, because counting
the blobs of a large store takes long, however many pages are open. A token is shown in the answer to the form that made
it, and nowhere else: the node keeps its hash. Only operators read the audit log and make tokens: the log names people
and what they look after. A continuity plan says where a state is weak: nobody reads its check without a session.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from pathlib import Path
from typing import Final

import structlog
from starlette.responses import Response

from comity.bounded_file import read_bounded
from comity.content.audit_log import ActRecord, check_chain
from comity.content.blobs import blobs_folder
from comity.content.gateway_tokens import ALL_REPOSITORIES, Token, TokenFile, TokenUses
from comity.content.kept_plan_checks import KeptPlanCheck, UnreadPlanCheck, kept_plan_checks
from comity.gateway.console.page import CONTINUITY, NODE, PageMaker, Reader
from comity.gateway.console.proposals import ProposalView, proposals
from comity.gateway.console.sessions import BrowserSessions
from comity.gateway.console.sign_in import see_other
from comity.gateway.console.state import StateReader, peer_state
from comity.gateway.declared_routes import DeclaredRoute
from comity.node.app import RunningNode
from comity.node.config import NodeConfig
from comity.node.maintenance.membership_costs import (
    LEAST_SECONDS,
    MAX_PRICES_BYTES,
    MembershipCosts,
    home_bytes,
    membership_costs,
    parse_prices,
)
from comity.node.maintenance.settings_shown import shown_settings
from comity.node.operator_acts import OperatorActs
from comity.node.threads import Clock, Pools
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.wire.node_status import NodeStatus

FRESH: Final = 10.0
"""Seconds for which a status is kept."""
CALLERS: Final = 20
"""Callers to which most bytes were sent, that a page lists."""
TOKENS: Final = f"{NODE}/tokens"
OVERLAP: Final = 86_400
"""Seconds for which a rotated token is still accepted."""
MAX_DAYS: Final = 3_650
MAX_REACHES: Final = 100
DAY: Final = 86_400
MEASURED: Final = 600.0
"""Seconds for which the size of the home is kept."""
AUDIT_LINES: Final = 200
"""Lines of the audit log that its page shows."""

_log: Final = structlog.get_logger("comity.gateway.console")


@frozen
class SentBytes:
    """Bytes of blobs sent to one caller since the node started, and to how many blobs they belong."""

    caller: str
    bytes: int
    blobs: int


@frozen
class WaitingWork:
    """What needs people of this node's member. `asks` and `requests` count requests to join, and for machines;
    `elsewhere` those for machines that are in others' logs only."""

    proposals: tuple[ProposalView, ...]
    asks: int
    requests: int
    elsewhere: int

    @property
    def count(self) -> int:
        return len(self.proposals) + bool(self.asks) + bool(self.requests or self.elsewhere)


class NodePages:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        node: RunningNode,
        maker: PageMaker,
        states: StateReader,
        sessions: BrowserSessions,
        acts: OperatorActs,
    ) -> None:
        self._node = node
        self._acts = acts
        self._maker = maker
        self._states = states
        self._sessions = sessions
        self._lock = asyncio.Lock()
        self._kept: tuple[float, NodeStatus] | None = None
        self._measured: tuple[float, int] | None = None

    def routes(self) -> list[DeclaredRoute]:
        page, access = self._maker.route, self._maker.access
        return [
            page(NODE, self.node, access("viewer")),
            page(f"{NODE}/waiting", self.waiting, access("viewer")),
            page(f"{NODE}/settings", self.settings, access("operator")),
            page(f"{NODE}/sessions", self.sessions, access("viewer")),
            page(f"{NODE}/sessions", self.end_session, access("operator", ("id",))),
            page(f"{NODE}/costs", self.costs, access("operator")),
        ]

    async def node(self, reader: Reader) -> Response:
        status = await self._status()
        return self._maker.render(
            reader,
            "node.html",
            await self._states.now(),
            report=status,
            peer_state=peer_state,
            sent=sent_by_caller(status),
            received=self._received(),
            sent_in_all=sum(item.bytes for item in status.served),
            reserve=self._node.home.config.storage.reserve_bytes,
            waiting=await self._waiting(),
        )

    async def waiting(self, reader: Reader) -> Response:
        return self._maker.render(reader, "waiting.html", await self._states.now(), waiting=await self._waiting())

    async def settings(self, reader: Reader) -> Response:
        """The settings as they are now; the node runs with those of its start."""
        home = self._node.home
        file = home.config.path("node.toml")
        shown = await home.pools.files(shown_settings, file)
        changed = await home.pools.files(NodeConfig.load, file) != home.config
        return self._maker.render(
            reader, "settings.html", await self._states.now(), settings=shown, changed=changed, file=file.name
        )

    async def sessions(self, reader: Reader) -> Response:
        own = reader.person
        listed = self._sessions.all() if own.role == "operator" else [(own, 0)]
        return self._maker.render(reader, "sessions.html", await self._states.now(), sessions=listed, own=own)

    async def end_session(self, reader: Reader) -> Response:
        fields, session = reader.form, reader.person
        async with self._acts.recorded("session.end", fields["id"][:8], by=session.who):
            if not self._sessions.end(fields["id"]):
                raise NotFound("no such session", why="it has ended already", code="NO-SESSION")
        _log.info("console session ended", by=session.who, session=fields["id"][:8])
        return see_other(reader, f"{NODE}/sessions")

    async def costs(self, reader: Reader) -> Response:
        found = await self._costs()
        template, state = "costs.html", await self._states.now()
        return self._maker.render(reader, template, state, costs=found, least=LEAST_SECONDS)

    async def _costs(self) -> MembershipCosts | None:
        """None where the operator states no prices. Raises NotFound, Malformed (PRICES-FILE), Unavailable."""
        home = self._node.home
        file = home.config.gateway.prices_file
        if file is None:
            return None
        stated = parse_prices(await home.pools.files(read_bounded, file, MAX_PRICES_BYTES))
        return membership_costs(await self._status(), await self._home_bytes(), stated)

    async def _home_bytes(self) -> int:
        """A home may have very many files, so they are not looked at again for each page."""
        config = self._node.home.config
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._measured is None or now - self._measured[0] > MEASURED:
                blobs = blobs_folder(config.storage.blobs)
                self._measured = now, await self._node.home.pools.files(home_bytes, config.home, blobs)
            return self._measured[1]

    async def _waiting(self) -> WaitingWork:
        """What the member of this node has to decide. Blocks nothing."""
        node = self._node
        found = proposals(node.home.membership, node.replication.charter_follower)
        own = tuple(found for found in found if any(vote.own for vote in found.pending))
        asks = await node.home.ledger.run(node.home.ledger.tables.join_requests.count)
        requests = node.offers.unanswered()
        return WaitingWork(own, asks, requests.own, requests.elsewhere)

    async def _status(self) -> NodeStatus:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._kept is None or now - self._kept[0] > FRESH:
                self._kept = now, await self._node.status.now()
            return self._kept[1]

    def _received(self) -> list[tuple[str, int]]:
        """Verified bytes received since the node started, by peer, the most first."""
        samples = [sample for metric in self._node.home.metrics.pull_bytes.collect() for sample in metric.samples]
        sums = {sample.labels["peer"]: int(sample.value) for sample in samples if sample.name.endswith("_total")}
        return Counter(sums).most_common(CALLERS)


def sent_by_caller(status: NodeStatus) -> list[SentBytes]:
    """The callers to which most bytes were sent."""
    sums, blobs = Counter[str](), Counter[str]()
    for served in status.served:
        sums[served.caller] += served.bytes
        blobs[served.caller] += 1
    return [SentBytes(caller, count, blobs[caller]) for caller, count in sums.most_common(CALLERS)]


@frozen
class TokenView:
    """A token in the list. `used` in POSIX seconds, 0 for never or unknown."""

    token: Token
    used: int
    expired: bool


class TokenPages:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        file: TokenFile,
        uses: TokenUses,
        pools: Pools,
        clock: Clock,
        maker: PageMaker,
        states: StateReader,
        acts: OperatorActs,
    ) -> None:
        self._file = file
        self._acts = acts
        self._uses = uses
        self._pools = pools
        self._clock = clock
        self._maker = maker
        self._states = states

    def routes(self) -> list[DeclaredRoute]:
        page, access = self._maker.route, self._maker.access
        return [
            page(TOKENS, self.tokens, access("viewer")),
            page(TOKENS, self.make, access("operator", ("name", "reach", "days"))),
            page(f"{TOKENS}/rotate", self.rotate, access("operator", ("id",))),
            page(f"{TOKENS}/revoke", self.revoke, access("operator", ("id",))),
        ]

    async def tokens(self, reader: Reader) -> Response:
        return await self._list(reader)

    async def make(self, reader: Reader) -> Response:
        fields, session = reader.form, reader.person
        now = int(self._clock())
        reach = tuple(fields["reach"].split())[: MAX_REACHES + 1] or (ALL_REPOSITORIES,)
        if len(reach) > MAX_REACHES:
            raise Malformed("the token names too many repositories", why=f"at most {MAX_REACHES}")
        days = read_days(fields["days"])
        expires = now + days * DAY if days else 0
        async with self._acts.recorded("token.new", fields["name"], f"access to {', '.join(reach)}", by=session.who):
            secret, token = await self._pools.files(self._file.add, fields["name"], reach, now, expires)
        _log.info("token made", by=session.who, token=token.id)
        return await self._list(reader, token, secret)

    async def rotate(self, reader: Reader) -> Response:
        fields, session = reader.form, reader.person
        async with self._acts.recorded("token.rotate", fields["id"], by=session.who):
            secret, token, old = await self._pools.files(self._file.rotate, fields["id"], int(self._clock()), OVERLAP)
        _log.info("token rotated", by=session.who, token=token.id, old=old.id)
        return await self._list(reader, token, secret)

    async def revoke(self, reader: Reader) -> Response:
        fields, session = reader.form, reader.person
        async with self._acts.recorded("token.revoke", fields["id"], by=session.who):
            token = await self._pools.files(self._file.revoke, fields["id"])
        _log.info("token revoked", by=session.who, token=token.id)
        return see_other(reader, TOKENS)

    async def _list(self, reader: Reader, made: Token | None = None, secret: str = "") -> Response:
        now = self._clock()
        listed = [
            TokenView(token, self._uses.times.get(token.id, 0), token.expired(now))
            for token in await self._pools.files(self._file.read)
        ]
        state = await self._states.now()
        return self._maker.render(reader, "tokens.html", state, tokens=listed, made=made, secret=secret, now=now)


def read_days(text: str) -> int:
    """The days of a form until a token ends; 0 if it is empty. Raises Malformed."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_DAYS):
        raise Malformed("the days are not a number that is possible", why=f"expected 1 to {MAX_DAYS}, or nothing")
    return int(text)


@frozen
class AuditLogView:
    """The newest lines, the newest first. `altered` says why the log does not hold; no line after that place is
    shown."""

    lines: tuple[ActRecord, ...]
    altered: str = ""


class HomeFilePages:
    """What files in the home say: what was done there, and the last checks of continuity plans. Not thread-safe: call
    from the event loop."""

    def __init__(self, home: Path, pools: Pools, maker: PageMaker, states: StateReader) -> None:
        self._home = home
        self._pools = pools
        self._maker = maker
        self._states = states

    def routes(self) -> list[DeclaredRoute]:
        maker = self._maker
        return [
            maker.route(f"{NODE}/audit-log", self.acts, maker.access("operator")),
            maker.route(CONTINUITY, self.plan_checks, maker.access("viewer")),
        ]

    async def acts(self, reader: Reader) -> Response:
        view = await self._pools.files(read_view, self._home)
        return self._maker.render(reader, "audit_log.html", await self._states.now(), view=view)

    async def plan_checks(self, reader: Reader) -> Response:
        """Nothing is checked: the page shows what `comity continuity check --keep` wrote."""
        found = await self._pools.files(kept_plan_checks, self._home)
        return self._maker.render(
            reader,
            "continuity.html",
            await self._states.now(),
            checks=[each for each in found if isinstance(each, KeptPlanCheck)],
            unread=[each for each in found if isinstance(each, UnreadPlanCheck)],
        )


def read_view(home: Path) -> AuditLogView:
    """Blocking. Raises Unavailable."""
    newest = deque[ActRecord](maxlen=AUDIT_LINES)
    try:
        newest.extend(check_chain(home))
    except NotFound:
        pass
    except Untrusted as error:
        return AuditLogView(tuple(reversed(newest)), error.why)
    return AuditLogView(tuple(reversed(newest)))
