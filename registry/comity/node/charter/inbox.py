"""Verified statements about the next epoch, read from the logs with a quota for each author in each log.

A statement is its payload: other envelopes of a counted statement cost nothing. A quota takes the first statements
in the order of the log, so every node that holds the log keeps the same ones, and no member uses another's quota. In
the logs of its own nodes a member has the large quota, which an honest member never reaches: it signs two votes in a
round. Above the quota, a vote is kept if a kept vote of another member names its round and body: so the votes that
others depend on are always available.

Each log is read in the order in which this node verified its statements, one window at a time, in turn with the
other logs. A statement counts in any log, by its signature; the limits below apply before a signature is checked.

    grows with                               limit               charged to       above the limit
    statements of a member in its own logs   HOME_LOG a log      the author       skipped; the status names the log
    in another log                           OTHER_LOG a log     the author       skipped; the status names the log
    votes above that, that others name       MAX_OVER_QUOTA      their author     skipped
    envelopes of one statement in one log    MAX_ENVELOPES       the log          skipped, as copies
    rotations of one member in one log       MAX_KEPT_ROTATIONS  the author       skipped
    skipped (round, body) pairs              MAX_SKIPPED         all              logs are read again when in doubt

Also here: statements of newcomers, looked up by the ids that a draft names; caches of signature checks and bodies.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Final, TypeAlias

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Pools
from comity.rules.tally import MAX_BODIES
from comity.trust.authorship import MAX_KEPT_ROTATIONS
from comity.trust.charter.document import MAX_BYTES, Body
from comity.trust.charter.votes import Intent, Ratify, RoundBody, Vote, parse_vote, void_reason
from comity.trust.encoding import Digest, bare_digest, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, KeySet, SignatureCheck, check_inception
from comity.trust.keys import PublicKey
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Author, Entry, Envelope, Statement, parse_entry
from comity.trust.statement_kinds import (
    ADOPTED,
    CHARTER_PREDICATES,
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INCEPTION,
    INTENT,
    LEFT,
    MISBEHAVIOUR,
    RATIFIED,
    ROTATED,
    VOTE_PREDICATES,
)

MAX_ENVELOPES: Final = 4
MAX_OVER_QUOTA: Final = 1024
MAX_SKIPPED: Final = 4096

_VoteKey: TypeAlias = "tuple[str, Digest, int, Digest, int | None]"
"""Identifies a vote for counting: kind, member, round, body, unlock."""


@frozen
class AuthorQuota:
    """The quota of one author in one log: statements, bytes of their lines, and bytes of the bodies of its drafts."""

    statements: int
    size: int
    drafted: int


HOME_LOG: Final = AuthorQuota(256, 2 * 1024 * 1024, 2 * MAX_BYTES)
OTHER_LOG: Final = AuthorQuota(32, 256 * 1024, MAX_BYTES)


@dataclass(slots=True)
class AuthorUsage:
    """The used part of one author's quota in one log. `counted`: by statement, the envelopes that were checked."""

    quota: AuthorQuota
    size: int = 0
    drafted: int = 0
    counted: dict[Digest, int] = field(default_factory=dict)
    over_quota: int = 0
    """Envelopes that were checked above the quota."""
    full: bool = False

    def charge(self, entry: Entry) -> bool:
        """Charge a statement to the quota, once for all its copies. Returns whether it is within the quota."""
        statement = entry.statement_digest
        if statement in self.counted:
            return True
        drafted = sum(item.size for item in entry.statement.objects) if entry.statement.predicate == DRAFT else 0
        size, drafted = self.size + len(entry.line), self.drafted + drafted
        self.full = self.full or len(self.counted) >= self.quota.statements or size > self.quota.size
        if self.full or drafted > self.quota.drafted:
            return False
        self.size, self.drafted, self.counted[statement] = size, drafted, 0
        return True

    def may_verify(self, entry: Entry) -> bool:
        """Count one more envelope of a counted statement. Returns whether it may be checked."""
        checked = self.counted[entry.statement_digest]
        self.counted[entry.statement_digest] = checked + 1
        return checked < MAX_ENVELOPES


@dataclass(slots=True)
class VoteInbox:
    """Statements about the successor of one body, by statement digest. The caller verifies an entry before `put`."""

    entries: dict[Digest, Entry] = field(default_factory=dict)
    usage: dict[tuple[str, Digest], AuthorUsage] = field(default_factory=dict)
    """By log and author."""
    _supporters: dict[RoundBody, set[Digest]] = field(default_factory=dict)
    """By (round, body), the members whose votes name it; at most two."""
    _counted: set[_VoteKey] = field(default_factory=set)
    _skipped: set[RoundBody] = field(default_factory=set)
    """The (round, body) pairs of skipped votes of all authors."""
    stale: bool = False
    """Whether a skipped vote is needed now, so the logs must be read again."""

    def full(self) -> tuple[tuple[str, Digest], ...]:
        """The (log, author) pairs above their quota."""
        return tuple(key for key, usage in self.usage.items() if usage.full)

    def admits(self, log: str, entry: Entry, *, home: bool = False) -> bool:
        """Charge an entry in a log to its author's quota there. Returns whether its signature should be checked.

        `home`: the log belongs to a node of the author.
        """
        by = entry.statement.by
        if by is None:
            return False
        usage = self.usage.setdefault((log, by.id), AuthorUsage(HOME_LOG if home else OTHER_LOG))
        within_quota = usage.charge(entry)
        if entry.statement_digest in self.entries:
            return False
        return usage.may_verify(entry) if within_quota else self._is_needed(usage, entry)

    def put(self, entry: Entry) -> bool:
        """Keep a verified entry. Returns whether it is new."""
        if entry.statement_digest in self.entries:
            return False
        self.entries[entry.statement_digest] = entry
        vote = _vote_of(entry)
        if vote is not None:
            self._counted.add(_vote_key(vote))
            for pair in _rounds_of(vote):
                self._add_supporter(pair, vote.member)
        return True

    def drop(self, statement: Digest) -> None:
        """Remove a statement."""
        self.entries.pop(statement, None)

    def read_again(self) -> None:
        """Reset the quotas, because the logs are read again from their start."""
        self.usage.clear()
        self._skipped.clear()
        self.stale = False

    def named_bodies(self) -> Iterator[Digest]:
        """Bodies in drafts and votes: for each author, the few that a tally may read."""
        by_author: dict[Digest, list[tuple[int, int, Digest]]] = {}
        for entry in self.entries.values():
            if entry.statement.predicate in (LEFT, DRAFT_WITHDRAWN) or entry.statement.by is None:
                continue
            vote = _vote_of(entry)
            rank = (2, 0) if vote is None else (0 if isinstance(vote, Ratify) else 1, -vote.round)
            by_author.setdefault(entry.statement.by.id, []).append((*rank, entry.statement.subject))
        for bodies in by_author.values():
            yield from list(dict.fromkeys(body for *_, body in sorted(bodies)))[: 2 * MAX_BODIES]

    def _is_needed(self, usage: AuthorUsage, entry: Entry) -> bool:
        """Whether an entry above the quota is a vote that another member's vote may depend on."""
        vote = _vote_of(entry)
        if vote is None or (isinstance(vote, Intent) and void_reason(vote) is not None):
            return False
        key, rounds = _vote_key(vote), _rounds_of(vote)
        if key in self._counted:
            return False
        if not all(self._supported_by_another(pair, vote.member) for pair in rounds):
            for pair in rounds if len(self._skipped) < MAX_SKIPPED else ():
                self._skipped.add(pair)
            return False
        usage.over_quota += 1
        return usage.over_quota <= MAX_OVER_QUOTA

    def _supported_by_another(self, pair: RoundBody, member: Digest) -> bool:
        return bool(self._supporters.get(pair, set()) - {member})

    def _add_supporter(self, pair: RoundBody, member: Digest) -> None:
        names = self._supporters.setdefault(pair, set())
        if member not in names and len(names) < 2:
            names.add(member)
            self.stale = self.stale or pair in self._skipped or len(self._skipped) >= MAX_SKIPPED


def prev_of(statement: Statement) -> Digest | None:
    """The body whose successor a statement is about; None if the field is missing or malformed."""
    name = "body" if statement.predicate == LEFT else "prev"
    try:
        return bare_digest(statement.body.get(name))
    except Malformed:
        return None


def _vote_of(entry: Entry) -> Vote | None:
    if entry.statement.predicate not in VOTE_PREDICATES:
        return None
    try:
        return parse_vote(entry)
    except ComityError:
        return None


def _vote_key(vote: Vote) -> _VoteKey:
    unlock = vote.unlock if isinstance(vote, Intent) else None
    return (type(vote).__name__, vote.member, vote.round, vote.body, unlock)


def _rounds_of(vote: Vote) -> list[RoundBody]:
    """The round of a vote and the round of its `unlock`, each with the body."""
    unlock = vote.unlock if isinstance(vote, Intent) else None
    rounds = (vote.round,) if unlock is None else (vote.round, unlock)
    return [RoundBody(at, vote.body) for at in rounds]


WINDOW: Final = 256
"""Statements of one log that are read in one step."""
NEWCOMER_PREDICATES: Final = (INCEPTION, ROTATED, CONSENTED)
"""Statements of newcomers that matter for a draft; they are looked up when the tally is computed."""
READ_PREDICATES: Final = (*CHARTER_PREDICATES, INCEPTION, ROTATED, MISBEHAVIOUR, ADOPTED)
MAX_NEWCOMER_STATEMENTS: Final = 16
"""Limit of statements of one newcomer in one log that cause a new tally."""


@dataclass(slots=True)
class ReadStep:
    """The result of one step over the logs. `behind`: a log has more to read."""

    updated: set[Digest] = field(default_factory=set)
    """Bodies with a new statement about their successor."""
    rotated: list[Entry] = field(default_factory=list)
    adopted: dict[str, Entry] = field(default_factory=dict)
    """By log, the last `adopted` of the log's own node."""
    newcomers: set[Digest] = field(default_factory=set)
    """Newcomers with a new statement."""
    behind: bool = False


@frozen
class _Writer:
    """A log, the nodes that write it, and their member; None if no node record is known."""

    log: str
    nodes: frozenset[Author]
    member: Digest | None


class VoteReader:
    """Reads the logs into one `VoteInbox` for each body. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, membership: Membership, signed: SignatureCheck
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._signed = signed
        self._read: dict[str, int] = {}
        """By log, the number of the last verified statement that was read."""
        self._generation = 0
        """The number of restarts. A page requested before a restart is discarded."""
        self._inboxes: dict[Digest, VoteInbox] = {}
        self._decided: dict[Digest, Digest] = {}
        self._seen: dict[tuple[str, Digest], dict[Digest, int]] = {}
        """By log and author: rotations and newcomers' statements that were read, with the number of envelopes."""
        self._reread_pending = False
        self.newcomers: frozenset[Digest] = frozenset()
        """Identities without a seat that a draft would admit."""

    def open(self, body: Digest, successor: Digest | None = None) -> None:
        """Read statements about the successor of `body`, from the start of every log: they can be anywhere in it.

        If the successor is decided, drafts and votes for other bodies are kept: votes may prove an equivocation, and a
        losing draft may be rebased on the new charter.
        """
        self._restart()
        if successor is not None:
            self._decided[body] = successor
            for digest, entry in list(self.inbox(body).entries.items()):
                if not self._matters(body, entry):
                    del self._inboxes[body].entries[digest]
        self._inboxes.setdefault(body, VoteInbox())

    def reread(self) -> None:
        """Read all logs again after they were read to the end: keys changed, so statements that did not verify may
        count now. Several changes cause one re-read."""
        self._reread_pending = True

    def inbox(self, body: Digest) -> VoteInbox:
        return self._inboxes.setdefault(body, VoteInbox())

    async def read(self) -> ReadStep:
        """One step: at most one window of each log with new verified statements."""
        step, generation, members = ReadStep(), self._generation, self._membership
        proven = self._ledger.tables.proven
        last = await self._ledger.read(proven.last_number)
        for state in await self._ledger.read(self._ledger.tables.logs.all):
            log = state.vkey
            if (read := self._read.get(log, 0)) >= last:
                continue
            page = await self._ledger.run(proven.since, read, READ_PREDICATES, WINDOW, log)
            if generation != self._generation:
                step.behind = True
                break
            whole = len(page) < WINDOW
            self._read[log] = max(last, page[-1].number if page else 0) if whole else page[-1].number
            step.behind = step.behind or not whole
            entries = await self._pools.files(_page_entries, self._store, page)
            writer = _Writer(log, members.writers(log), members.owner(log))
            wanted = [entry for entry in entries if self._classify(step, writer, entry)]
            for entry in await self._pools.hashing(self._verified, wanted, self._chains()):
                if (body := self.put(entry)) is not None:
                    step.updated.add(body)
        if not step.behind and (self._reread_pending or self._is_stale()):
            self._restart()
            step.behind = True
        return step

    def put(self, entry: Entry) -> Digest | None:
        """Keep a verified entry. Returns the body it is about if the entry is new."""
        body = prev_of(entry.statement)
        return body if body in self._inboxes and self._inboxes[body].put(entry) else None

    def full(self, body: Digest) -> tuple[str, ...]:
        """Logs in which an author is above the quota."""
        return tuple(dict.fromkeys(log for log, _ in self.inbox(body).full()))

    def used(self, body: Digest, log: str, author: Digest) -> int:
        """The number of an author's counted statements about the successor of `body` in a log, as far as it is read."""
        usage = self.inbox(body).usage.get((log, author))
        return len(usage.counted) if usage else 0

    def _restart(self) -> None:
        """Read all logs again from the start."""
        self._generation += 1
        self._reread_pending = False
        self._read.clear()
        self._seen.clear()
        for inbox in self._inboxes.values():
            inbox.read_again()

    def _is_stale(self) -> bool:
        return any(inbox.stale for body, inbox in self._inboxes.items() if body not in self._decided)

    def _matters(self, body: Digest, entry: Entry) -> bool:
        decided = self._decided.get(body)
        return decided is None or (
            entry.statement.predicate in (DRAFT, INTENT, RATIFIED) and entry.statement.subject != decided
        )

    def _classify(self, step: ReadStep, writer: _Writer, entry: Entry) -> bool:
        """Record entries that need no check here. Returns whether the entry's signature must be checked.

        Rotations prove themselves, and the reader of `adopted` checks the node's key.
        """
        by, predicate = entry.statement.by, entry.statement.predicate
        if by is None:
            return False
        if predicate == ADOPTED:
            if by in writer.nodes:
                step.adopted[writer.log] = entry
        elif by.id in self.newcomers:
            if predicate in NEWCOMER_PREDICATES and self._within_limit(writer.log, entry, MAX_NEWCOMER_STATEMENTS):
                step.newcomers.add(by.id)
        elif self._membership.chains(by.id):
            if predicate != ROTATED:
                return self._admits(writer, entry, by.id)
            if self._within_limit(writer.log, entry, MAX_KEPT_ROTATIONS):
                step.rotated.append(entry)
        return False

    def _admits(self, writer: _Writer, entry: Entry, author: Digest) -> bool:
        body = prev_of(entry.statement)
        if body is None or body not in self._inboxes or not self._matters(body, entry):
            return False
        return self._inboxes[body].admits(writer.log, entry, home=writer.member == author)

    def _within_limit(self, log: str, entry: Entry, most: int) -> bool:
        """Whether an entry is among the first `most` of its author in a log, and among the first envelopes of it."""
        assert entry.statement.by is not None
        seen, statement = self._seen.setdefault((log, entry.statement.by.id), {}), entry.statement_digest
        if statement not in seen and len(seen) >= most:
            return False
        seen[statement] = seen.get(statement, 0) + 1
        return seen[statement] <= MAX_ENVELOPES

    def _chains(self) -> Mapping[Digest, Sequence[RotationChain]]:
        members = self._membership
        return {identity: members.chains(identity) for identity in members.known}

    def _verified(self, wanted: Iterable[Entry], chains: Mapping[Digest, Sequence[RotationChain]]) -> list[Entry]:
        """Blocking. The entries with a valid signature of a current or former member. States that an entry does not
        name cost nothing, however many a member made."""
        return [
            entry
            for entry in wanted
            if (by := entry.statement.by)
            and any(chain.signers(entry.envelope, check=self._signed) for chain in chains.get(by.id, ()))
        ]


def _page_entries(store: BlobStore, page: Iterable[ProvenLine]) -> list[Entry]:
    """Blocking. The entries of a page, with each `misbehaviour` statement replaced by its two lines."""
    entries: list[Entry] = []
    for item in page:
        entry = parse_entry(item.line)
        entries += _evidence(store, entry) if entry.statement.predicate == MISBEHAVIOUR else (entry,)
    return entries


def _evidence(store: BlobStore, report: Entry) -> list[Entry]:
    """Blocking. The two lines of a `misbehaviour` statement, unverified: they prove themselves or nothing."""
    lines = []
    for item in report.statement.objects[:2]:
        with contextlib.suppress(ComityError):  # too large, not a statement, or removed meanwhile
            if item.size <= MAX_LINE:
                lines.append(parse_entry(b"".join(store.iterate(item.digest, 0, item.size))))
    return lines


MAX_VERIFIED: Final = 65_536


class SignatureCache:
    """`KeySet.signed` with a cache. Results depend on the arguments only, so a race in threads costs one repeated
    check."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[KeySet, Digest, tuple[PublicKey, ...]], bool] = OrderedDict()

    def signed(self, keys: KeySet, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
        key = keys, sha256(envelope.encode()), tuple(extra_keys)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = keys.signed(envelope, extra_keys)
            while len(self._known) > MAX_VERIFIED:
                self._known.popitem(last=False)
        return known


MAX_LOGGED: Final = 64
"""Limit of statements of one identity and predicate that are read."""
CONSENTS: Final = 8
"""Limit of consents of one newcomer to drafts of one epoch."""


def newcomer_entries(ledger: Ledger, identity: Digest, body: Digest, signatures: SignatureCache) -> list[Entry]:
    """Blocking. Verified statements of an identity without a seat that matter for a successor of `body`, bounded."""
    found = find_inception(ledger, identity)
    if found is None:
        return []
    record, entry = found
    chain = logged_rotations(ledger, KeyState.of_inception(record), signatures)
    consents = (
        entries
        for entries in logged_statements(ledger, identity, CONSENTED)
        if prev_of(entries.statement) == body
        and any(signatures.signed(state.keys, entries.envelope) for state in chain.reached)
    )
    return [entry, *(step.entry for step in chain.steps), *islice(consents, CONSENTS)]


def find_inception(ledger: Ledger, identity: Digest) -> tuple[Inception, Entry] | None:
    """Blocking. The verified inception of an identity, with its entry."""
    for entry in logged_statements(ledger, identity, INCEPTION):
        try:
            record = check_inception(entry)
        except ComityError:
            continue
        if record.id == identity:
            return record, entry
    return None


def logged_rotations(ledger: Ledger, start: KeyState, signatures: SignatureCache) -> RotationChain:
    """Blocking. The rotation chain of an identity, from the rotations in the logs held here."""
    return follow(start, logged_statements(ledger, start.identity, ROTATED), signed=signatures.signed)


def logged_statements(ledger: Ledger, identity: Digest, predicate: str) -> list[Entry]:
    """Blocking. The first verified statements of an identity with one predicate."""
    if predicate == INCEPTION:
        line = ledger.proven.inception(identity)
        return [parse_entry(line)] if line else []
    if predicate == ROTATED:
        return [parse_entry(line) for line in ledger.proven.rotations(identity)]
    found = (parse_entry(item.line) for item in ledger.proven.by(identity, predicate, MAX_LOGGED).found)
    return list({entry.statement_digest: entry for entry in found}.values())


def first_locations(ledger: Ledger, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, int]]:
    """Blocking. The first log and index of each entry; entries in no log held here are left out."""
    for entry in entries:
        for place in ledger.index.positions(entry.digest)[:1]:
            yield entry, place.origin, place.index


MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Limit in bytes of the cached bodies. A parsed one takes at most 3.1 times as much memory, by measurement. One
member's bodies take at most half, so its drafts do not evict those of all others."""
MAX_SEATS: Final = 1024
"""Limit of bodies with cached seat ids."""


class StoredBodies(Mapping[Digest, bytes]):
    """The bodies named by `digests` that are in the blob store, as bytes, with a cache of the parsed ones. Blocking."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._parsed: OrderedDict[Digest, Body] = OrderedDict()
        self._seat_ids: OrderedDict[Digest, frozenset[Digest]] = OrderedDict()
        self._lock = Lock()
        self.digests: frozenset[Digest] = frozenset()

    def with_bodies(self, bodies: Iterable[Body]) -> Mapping[Digest, bytes]:
        """This mapping, and `bodies` that may be missing in the store."""
        return ChainMap({body.digest: body.data for body in bodies}, self)  # type: ignore[arg-type]

    def parse(self, data: bytes) -> Body:
        """`Body.parse` with a cache. Thread-safe. Raises Malformed."""
        digest = sha256(data)
        with self._lock:
            if digest in self._parsed:
                self._parsed.move_to_end(digest)
                return self._parsed[digest]
        parsed = Body.parse(data)
        with self._lock:
            self._parsed[digest] = parsed
            while sum(len(body.data) for body in self._parsed.values()) > MAX_BODY_BYTES:
                self._parsed.popitem(last=False)
        return parsed

    def seat_ids(self, digest: Digest) -> frozenset[Digest]:
        """The ids of a body's seats; empty if the body is missing or malformed. Blocking; each body is read once."""
        if digest not in self._seat_ids and digest in self:
            try:
                found = frozenset(seat.id for seat in self.parse(self[digest]).members)
            except ComityError:
                found = frozenset()
            with self._lock:
                self._seat_ids[digest] = found
                while len(self._seat_ids) > MAX_SEATS:
                    self._seat_ids.popitem(last=False)
        return self._seat_ids.get(digest, frozenset())

    def __getitem__(self, digest: Digest) -> bytes:
        with self._lock:
            parsed = self._parsed.get(digest) if digest in self.digests else None
        return self._read(digest) if parsed is None else parsed.data

    def __iter__(self) -> Iterator[Digest]:
        return (digest for digest in self.digests if self._store.has(digest))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self, digest: Digest) -> bytes:
        try:
            if digest not in self.digests or not self._store.has(digest) or self._store.size(digest) > MAX_BYTES:
                raise KeyError(digest)
            return b"".join(self._store.iterate(digest, 0, self._store.size(digest)))
        except Unavailable as error:  # removed meanwhile
            raise KeyError(digest) from error
